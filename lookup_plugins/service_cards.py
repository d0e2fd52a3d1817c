# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: service_cards
author: Infini
version_added: "0.1.0"
short_description: The service cards of the roles that the plays apply to this host
description:
  - Reads C(roles/*/meta/service.yml) of every role that a play of C(playbooks/) applies to the host, and renders them
    with the host's variables; a role's own defaults are known too, although the current play may not run that role.
  - The firewall asks it for ports, C(infini verify) for checks, the first playbook of a run for packages, the
    backup for what to keep.
options:
  _terms:
    description: >-
      V(cards), the whole cards, each with the key C(playbook) added; V(checks), the same with names, ports and checks
      only; V(ports), the ports as one flat list; V(packages), the names of packages; V(whole), what a backup must hold
      of each service that has something to keep; V(held), the units that stand still while that is brought back. The
      less is asked for, the fewer variables must be defined.
    type: list
    elements: str
    choices: [cards, checks, held, packages, ports, whole]
    default: [cards]
  playbook:
    description: Only the cards of the roles that this playbook applies, named without its suffix; default all.
    type: str
"""

EXAMPLES = r"""
- name: Open what the cards declare
  ansible.builtin.debug:
    msg: "{{ lookup('service_cards', 'ports') }}"
- name: Install what the roles of playbooks/web.yml need
  packages:
    names: "{{ lookup('service_cards', 'packages', playbook='web') }}"
"""

RETURN = r"""
_raw:
  description: Rendered cards, names, or ports as dictionaries with the keys service, port, protocol and from.
  type: list
  elements: raw
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from infini.rendered_cards import RenderedCards


class LookupModule(LookupBase):
    """The door to `infini.rendered_cards` for inventories and plays."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """Give one list."""
        what = terms[0] if terms else "cards"
        if what not in ("cards", "checks", "held", "packages", "ports", "whole"):
            raise AnsibleError(f"service_cards knows cards, checks, held, packages, ports and whole, not {what!r}")
        self.set_options(var_options=variables, direct=options)
        reader = RenderedCards(self._loader, self._templar, variables or {}, self.get_option("playbook"))
        return [getattr(reader, what)()]
