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

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import sympa, sympa_door, sympa_plan
from ansible.module_utils.hosting.brake import UnsafePlanError

PERSON = {
    "email": {"type": "str", "required": True},
    "name": {"type": "str"},
    "info": {"type": "str"},
    "receives": {"type": "bool", "default": True},
    "hidden": {"type": "bool", "default": False},
}
LIST = {
    "name": {"type": "str", "required": True},
    "robot": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True},
    "subject": {"type": "str", "required": True},
    "description": {"type": "str"},
    "language": {"type": "str"},
    "topics": {"type": "list", "elements": "str", "default": []},
    "status": {"type": "str", "choices": ["open", "closed"], "default": "open"},
    "owners": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {**PERSON, "privileged": {"type": "bool", "default": True}},
    },
    "moderators": {"type": "list", "elements": "dict", "default": [], "options": PERSON},
    "settings": {"type": "dict", "default": {}},
    "managed": {"type": "bool", "default": False},
}


class Door:
    """Sympa on this host."""

    def __init__(self, module):
        options = module.params
        self.check = module.check_mode
        self.folders = sympa_door.Folders(options["etc"], options["home"], options["owner"])
        self.database = sympa_door.Database(options["database"])
        self.map = Path(options["maps"], "transport")

    def read(self):
        """Return the lists that are there; in check mode a host without Sympa has none."""
        if self.check and not self.folders.home.is_dir():
            return {}
        return sympa_door.read_lists(self.folders, self.database)

    def turn(self, found, closing, opening):
        """Have Sympa close and open lists, and return all of them as they are then."""
        if self.check:
            return sympa_plan.turned(found, closing, opening)
        for address in closing:
            sympa_door.sympa("close", address)
        for address in opening:
            sympa_door.sympa("open", address)
        return self.read() if closing or opening else found

    def write(self, plan, now):
        """Write the lists of a plan: files, then tables, then the daemons are told."""
        for address, one in plan.write.items():
            self.folders.write_list(address, one, plan.before.get(address))
        self.database.write(sympa_door.list_statements(plan.write, plan.before, now))
        self.folders.touch(plan.write, "admin")


def main():
    """Read, plan, write."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "lists": {"type": "list", "elements": "dict", "required": True, "options": LIST},
            "robots": {"type": "list", "elements": "str", "required": True},
            "listmaster": {"type": "str", "required": True},
            "taken": names,
            "confirm_closings": names,
            "confirm_takeovers": names,
            "database": {"type": "str", "default": "sympa"},
            "etc": {"type": "path", "default": "/etc/sympa"},
            "home": {"type": "path", "default": "/var/lib/sympa/list_data"},
            "maps": {"type": "path", "default": "/etc/sympa/postfix"},
            "owner": {"type": "str", "default": sympa_door.USER},
        },
        supports_check_mode=True,
    )
    options, door, now, started = module.params, Door(module), int(time.time()), time.monotonic()
    wanted = options["lists"]
    try:
        sympa.refuse_impossible_lists(wanted, options["robots"], options["taken"])
        sympa.refuse_unknown_topics(wanted, door.folders.topics())
        found = door.read()
        people = sympa_door.with_people_kept(door.folders, found)
        sympa_plan.refuse_takeovers(wanted, people, options["confirm_takeovers"])
        closing, opening = sympa_plan.turns(wanted, found, options["confirm_closings"])
        turned = door.turn(found, closing, opening)
        plan = sympa_plan.plan_lists(wanted, turned, now, options["listmaster"])
        addresses = sympa_door.all_addresses(door.folders, {**turned, **plan.after})
        stale = sympa_door.map_differs(door.map, addresses)
        if not module.check_mode:
            if plan.changed:
                door.write(plan, now)
            if stale:
                # Read again: meanwhile people may have made lists on Sympa's pages.
                door.folders.write_map(door.map, sympa_door.all_addresses(door.folders, door.folders.lists()))
    except (sympa.SympaError, UnsafePlanError) as error:
        module.fail_json(msg=str(error))
    changes = sympa_plan.ListPlan(found, {**{name: turned[name] for name in (*closing, *opening)}, **plan.after})
    module.exit_json(
        changed=plan.changed or stale or bool(closing or opening),
        written=sorted(plan.write),
        closed=closing,
        opened=opening,
        others=sum(not one.ours for address, one in turned.items() if address not in plan.after),
        seconds=round(time.monotonic() - started, 2),
        diff=changes.diff() if module._diff else [],  # a thousand lists are a long text
    )


if __name__ == "__main__":
    main()
