# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: watch_expectations
author: Infini
version_added: "0.1.0"
short_description: What the watch on this host may expect of the other hosts
description:
  - Makes the probes of C(infini verify) for every other host of the inventory, as this host sees them, and adds the
    French phrases, so that the host that watches needs neither Ansible nor the repository.
  - Facts of the other hosts are not used, so that a run on this host alone gives the same.
options: {}
"""

EXAMPLES = r"""
- name: See what the watch will look at
  ansible.builtin.debug:
    msg: "{{ lookup('watch_expectations').probes }}"
"""

RETURN = r"""
_raw:
  description: A dictionary with the keys probes, here and phrases.
  type: list
  elements: dict
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.lookup import LookupBase

from infini.locale import phrases
from infini.rendered_cards import RenderedCards
from infini.verify.expect import OUTSIDE, Host, about_host, probes


class LookupModule(LookupBase):
    """The door to `infini.verify.expect` for the watch."""

    def run(self, _terms: list[str], variables: Mapping[str, Any] | None = None, **_options: Any) -> list[Any]:
        """Give one dictionary."""
        known = dict(variables or {})
        me = known["inventory_hostname"]
        viewpoint = [me, *known["group_names"]]
        others = [self._host(name, known) for name in sorted(known["groups"]["all"]) if name != me]
        return [
            {
                "probes": [asdict(probe) for host in others for probe in probes(host, viewpoint)],
                "here": {"host": me, **dict(self._host(me, known).about)},
                "phrases": phrases("fr"),
            }
        ]

    def _host(self, name: str, known: Mapping[str, Any]) -> Host:
        own = {**known["hostvars"].raw_get(name), "hostvars": known["hostvars"], "ansible_facts": {}}
        templar = self._templar.copy_with_new_env(available_variables=own)
        addresses = [str(templar.template(own[key])) for key in ("hosting_ipv4", "hosting_ipv6") if own.get(key)]
        inventory = Path(known["inventory_dir"]).name
        user = str(templar.template(own.get("ansible_user") or ""))
        become = boolean(templar.template(own.get("ansible_become", False)))
        about = about_host(inventory, name, addresses, user, become)
        host = Host(name, own["group_names"], addresses, about=about)
        cards = RenderedCards(self._loader, self._templar, own).checks(*OUTSIDE)
        return Host(host.name, host.groups, host.addresses, "", cards, host.about)
