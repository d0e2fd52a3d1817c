# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role alternc."""

from __future__ import annotations

from hosting.alternc_apply import OWN_UNITS
from infini import engine


def templates(versions):
    """Return the templates of the types of these versions of PHP, as AlternC looks for them."""
    return [
        {"name": f"php{version.replace('.', '')}-fpm-{https}", "version": version, "https": https}
        for version in versions
        for https in ("http", "https", "both")
    ]


def types(versions, others=()):
    """Return the types of these versions of PHP, and others, as the module `alternc_domain_types` takes them."""
    ours = [
        {
            "name": f"php{version.replace('.', '')}-fpm",
            "description": f"PHP {version}",
            "target": "DIRECTORY",
            "entry": "%SUB% IN A @@PUBLIC_IP@@",
            "compatibility": ["txt", "dkim", "defmx", "defmx2", "mx", "mx2"],
            "enable": "ALL",
            "create_tmpdir": True,
            "create_targetdir": True,
            "has_https_option": True,
        }
        for version in versions
    ]
    names = {one["name"] for one in ours}
    return [*ours, *(one for one in others if one["name"] not in names)]


PORTS = {
    "named": ["53/tcp", "53/udp"],
    "postfix": ["25/tcp", "465/tcp", "587/tcp"],
    "dovecot": ["110/tcp", "143/tcp", "993/tcp", "995/tcp", "4190/tcp"],
    "proftpd": ["21/tcp"],
}
"""Where the services that AlternC configures listen."""


def ports(services, apache):
    """Return the ports that these services open, as a service card says them; Apache's are those that are given."""
    known = {**PORTS, "apache2": [f"{port}/tcp" for port in apache]}
    found = (port.split("/") for service in services for port in known.get(service, []))
    return [{"port": int(number), "protocol": protocol, "from": "any"} for number, protocol in found]


def modules(name):
    """Return the modules of hosting/ that one of them needs, itself among them."""
    return ["__init__", *sorted(engine.sources(name))]


def units(services):
    """Return the units of these services and of the engine as the module `systemd_units` takes them."""
    return [{"name": name} for name in (*(f"{service}.service" for service in services), *OWN_UNITS)]


class FilterModule:
    """What the role may write after a bar."""

    def filters(self):
        """Name the filters."""
        return {
            "alternc_ports": ports,
            "alternc_templates": templates,
            "alternc_types": types,
            "alternc_units": units,
            "hosting_modules": modules,
        }
