# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn accounts and sites into the sets that roles own; the thinking is in module_utils/hosting/."""

from __future__ import annotations

from hosting import model, php


class FilterModule:
    """What playbooks and inventories may write after a bar."""

    def filters(self):
        """Name the filters."""
        return {
            "hosting_accounts_of": model.accounts_of,
            "hosting_backup_clients": model.backup_clients,
            "hosting_backup_repositories": model.backup_repositories,
            "hosting_cms_sites": model.cms_sites,
            "hosting_databases": model.databases,
            "hosting_default_limits": model.default_limits,
            "hosting_front_sites": model.front_sites,
            "hosting_mail_nodes": model.mail_nodes,
            "hosting_members": model.members,
            "hosting_names": model.names,
            "hosting_peers": model.peers,
            "hosting_pools": model.pools,
            "hosting_redirections": model.redirections,
            "hosting_unix_accounts": model.unix_accounts,
            "hosting_virtual_hosts": model.virtual_hosts,
            "php_packages": php.packages,
            "php_patterns": php.patterns,
            "php_retirable": php.retirable,
            "php_trees": php.trees,
            "php_units": php.units,
        }
