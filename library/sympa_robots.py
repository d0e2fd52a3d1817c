#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sympa_robots
short_description: Own the whole set of Sympa's robots
description:
  - Writes the file of each declared robot (C(robot.conf), all of it) and makes the folder of its lists.
  - A robot that is no longer declared keeps its lists and archives and loses its addresses; nothing is deleted.
    Robots that were made by hand and never declared are left alone.
  - Writes the map of the mail domains that are robots, for Postfix.
options:
  robots:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Domain of the robot., type: str, required: true}
      title: {description: What its pages are called., type: str}
      listmasters: {description: Addresses of those who look after it., type: list, elements: str, required: true}
      language: {description: Language of its messages and pages., type: str, default: fr}
      url: {description: Where its pages are., type: str}
      dkim:
        description: "How it signs: C(selector), C(key_file), C(domain). Without a file the host makes a key."
        type: dict
      arc:
        description: "How it seals: C(selector), C(key_file), C(domain), C(server). Its key as with O(robots[].dkim)."
        type: dict
      dmarc: {description: "Senders it replaces: C(mode), C(other_email), C(phrase), C(domain_regex).", type: dict}
      settings: {description: Further parameters in Sympa's own words., type: dict, default: {}}
  url:
    description: Where the pages of a robot are that says nothing of it; C({robot}) is its name.
    type: str
    default: https://{robot}/sympa
  taken:
    description: Addresses that are aliases and mailboxes of others.
    type: list
    elements: str
    default: []
  used:
    description: Robots that declared lists are on; none of them may be missing.
    type: list
    elements: str
    default: []
  confirm_closings:
    description: Robots that may lose their addresses although they are many at once.
    type: list
    elements: str
    default: []
  host: {description: Name of the mail server in the DNS., type: str, default: ""}
  spf: {description: "SPF record of a robot; C({domain}) stands for it.", type: str, default: v=spf1 mx ~all}
  dmarc: {description: "DMARC record of a robot; C({domain}) stands for it.", type: str, default: v=DMARC1; p=none}
  records:
    description: File for what the DNS must say of the robots that sign by keys of this host.
    type: path
    default: /var/lib/infini-sympa/records.zone
  records_copy:
    description: File on the control node for a copy of it. Empty for none.
    type: path
    default: ""
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
- name: Own the robots
  sympa_robots:
    robots:
      - {name: listes.velo.test, title: Vélo en ville, listmasters: [tech@infini.test]}
"""

RETURN = r"""
written: {description: Robots whose file was written now., type: list, elements: str, returned: always}
keys: {description: Domains whose key was made now., type: list, elements: str, returned: always}
closed: {description: Robots that lost their addresses now., type: list, elements: str, returned: always}
told: {description: What the DNS must say., type: str, returned: where it is not kept on the control node}
seconds: {description: How long it took on the host., type: float, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.sympa_robots_door import SPEC, answer


def main():
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
