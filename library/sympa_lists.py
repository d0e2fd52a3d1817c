#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sympa_lists
short_description: Own the whole set of Sympa's lists
description:
  - Writes what Sympa itself would write for each declared list, its file and its lines in Sympa's tables, and only
    where something differs. Parameters that are not declared are the list owners' own business and stay.
  - A list that is no longer declared is closed by Sympa, and opened again when it is declared again; its members and
    archives stay. Lists that people made with Sympa's own tools and that were never declared are left alone.
  - Writes the map of all addresses of robots and lists, for Postfix. Nobody is sent any mail.
options:
  lists:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "Name, without its domain.", type: str, required: true}
      robot: {description: Domain of its robot., type: str, required: true}
      kind:
        description: V(newsletter), V(discussion), V(closed), or V(custom), which is what its settings say.
        type: str
        required: true
      subject: {description: What it is for., type: str, required: true}
      description: {description: A longer text for its page; without one the owners' own stays., type: str}
      language: {description: "Its language, if not the robot's.", type: str}
      topics: {description: Topics under which it is listed., type: list, elements: str, default: []}
      status: {description: C(open) or C(closed)., type: str, choices: [open, closed], default: open}
      owners:
        description: Who looks after it.
        type: list
        elements: dict
        required: true
        suboptions:
          email: {description: Address., type: str, required: true}
          name: {description: Name., type: str}
          info: {description: A note for the listmasters., type: str}
          privileged: {description: Whether the owner may change everything., type: bool, default: true}
          receives: {description: Whether Sympa writes to the person., type: bool, default: true}
          hidden: {description: Whether the list's page leaves the person out., type: bool, default: false}
      moderators:
        description: Who lets messages pass; the owners where there is none.
        type: list
        elements: dict
        default: []
        suboptions:
          email: {description: Address., type: str, required: true}
          name: {description: Name., type: str}
          info: {description: A note for the listmasters., type: str}
          receives: {description: Whether Sympa writes to the person., type: bool, default: true}
          hidden: {description: Whether the list's page leaves the person out., type: bool, default: false}
      settings: {description: Parameters that differ from the kind's in Sympa's own words., type: dict, default: {}}
      managed: {description: Not looked at here. See M(sympa_subscribers)., type: bool, default: false}
  robots:
    description: Domains of the declared robots.
    type: list
    elements: str
    required: true
  listmaster: {description: Who is told to have made the lists., type: str, required: true}
  taken:
    description: Addresses that are aliases and mailboxes of others.
    type: list
    elements: str
    default: []
  confirm_closings:
    description: Addresses of lists that may be closed although they are many at once.
    type: list
    elements: str
    default: []
  confirm_takeovers:
    description: Addresses of lists that may be handed to the declared owners although none of them is one now.
    type: list
    elements: str
    default: []
  database: {description: Sympa's database on this host., type: str, default: sympa}
  etc: {description: Sympa's folder of settings., type: path, default: /etc/sympa}
  home: {description: Sympa's folder of lists., type: path, default: /var/lib/sympa/list_data}
  maps: {description: Folder of the maps for Postfix., type: path, default: /etc/sympa/postfix}
  owner: {description: Account to whom the files belong., type: str, default: sympa}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the lists
  sympa_lists:
    robots: [listes.velo.test]
    listmaster: listmaster@infini.test
    lists:
      - name: amis
        robot: listes.velo.test
        kind: discussion
        subject: Les amis du vélo
        owners: [{email: contact@velo.test}]
"""

RETURN = r"""
written: {description: Lists made or mended now., type: list, elements: str, returned: always}
closed: {description: Lists closed now., type: list, elements: str, returned: always}
opened: {description: Lists opened again now., type: list, elements: str, returned: always}
others: {description: How many lists were never declared., type: int, returned: always}
seconds: {description: How long it took on the host., type: float, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.sympa_lists_door import SPEC, answer


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
