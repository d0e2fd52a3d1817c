#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: sympa_subscribers
short_description: Own the subscribers of Sympa's lists by a file
description:
  - On managed lists the file is the truth; on the others it only adds those who are new in it.
  - Whoever was in the file the last time and is no longer on the list has unsubscribed, and is not brought back. To
    bring somebody back all the same, take the line out, apply, and put it in again.
  - A line that cannot be followed is named and costs no other; nobody is taken off a list that has such a line. The
    module fails in the end, so that somebody mends it.
  - Writes Sympa's tables directly; nobody is sent any mail. Lists that are as the file says are not even read.
options:
  src:
    description:
      - File on the host, a subscription a line, columns parted by tabs; the first line names them, C(list) and C(email)
        first, then any of C(name), C(reception), C(visibility) and C(date) (seconds since 1970).
      - A column that is not there is left to the subscribers; C(date) counts for new ones only.
    type: path
    required: true
  lists:
    description: Addresses of all declared lists.
    type: list
    elements: str
    required: true
  managed:
    description: Addresses of those whose subscribers are the file's alone.
    type: list
    elements: str
    default: []
  closed:
    description: Addresses of those that are closed; their lines wait until they are open again.
    type: list
    elements: str
    default: []
  confirm_removals:
    description: Addresses of lists that may lose subscribers although they are many at once.
    type: list
    elements: str
    default: []
  known:
    description: Where the module keeps whom the file has named.
    type: path
    default: /var/lib/infini-sympa/known.json
  database: {description: Sympa's database on this host., type: str, default: sympa}
  home: {description: Sympa's folder of lists., type: path, default: /var/lib/sympa/list_data}
  owner: {description: Account to whom the files belong., type: str, default: sympa}
attributes:
  check_mode: {support: full}
  diff_mode:
    support: partial
    details: Numbers a list; addresses are nobody's but the list's.
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the subscribers
  sympa_subscribers:
    src: /var/lib/infini-sympa/subscribers.tsv
    lists: [amis@listes.velo.test]
    managed: [amis@listes.velo.test]
"""

RETURN = r"""
added: {description: How many were added now., type: int, returned: always}
mended: {description: How many were changed now., type: int, returned: always}
removed: {description: How many were taken off now., type: int, returned: always}
left: {description: "How many the file names who left by themselves.", type: int, returned: always}
subscriptions: {description: How many lines the file has that can be followed., type: int, returned: always}
seconds: {description: How long it took on the host., type: float, returned: always}
mib: {description: "How much memory it took at most, in MiB.", type: int, returned: "when the file was read"}
emptied: {description: Lists that lost all at once whom the file names., type: list, elements: str, returned: success}
faults: {description: The first of the lines that cannot be followed., type: list, elements: str, returned: always}
"""

import hashlib
import json
import resource
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import sympa, sympa_door
from ansible.module_utils.hosting import sympa_subscribers as thinking
from ansible.module_utils.hosting.brake import UnsafePlanError

NOTHING = {"added": 0, "mended": 0, "removed": 0}


def parse(options):
    """Read the file."""
    try:
        with Path(options["src"]).open(encoding="utf-8-sig", newline="\n") as lines:
            return thinking.parse(lines, options["lists"])
    except (UnicodeDecodeError, thinking.FileError) as error:
        why = "it is not UTF-8: write it again in UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise sympa.SympaError(f"the file of subscribers {options['src']} cannot be used: {why}") from None


class Memory:
    """What the last run left: whom the file named, and with which file and lists the database was as it should be."""

    def __init__(self, options):
        self.path = Path(options["known"])
        self.settled = self.path.with_name("settled.json")
        sums = hashlib.sha256(repr((options["lists"], sorted(options["managed"]), options["closed"])).encode())
        sums.update(Path(options["src"]).read_bytes())
        self.sums = sums.hexdigest()

    def answer(self, database):
        """Return the last run's answer where nothing has changed since, neither in the file nor in the database."""
        try:
            last = json.loads(self.settled.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        same = last["sums"] == self.sums and last["prints"] == fingerprints(database, last["columns"])
        return last["answer"] if same else None

    def keep(self, columns, prints, answer):
        """Remember that all is as it should be."""
        text = {"sums": self.sums, "columns": columns, "prints": prints, "answer": answer}
        sympa_door.put_private(self.settled, json.dumps(text))


def fingerprints(database, columns):
    """Return the fingerprint of each list that has subscribers."""
    return {row[0]: [int(row[1]), int(row[2])] for row in database.ask(thinking.fingerprint_sql(columns))}


def plans(options, wanted, meant, database, known):
    """Return what changes, how many subscribers the lists have that change, and all fingerprints."""
    prints = fingerprints(database, wanted.compared)
    todo = {}
    differing = thinking.differing(wanted, options["managed"], meant, prints, known, options["closed"])
    found = dict(sympa_door.read_subscribers(database, differing)) if differing else {}
    for address in differing:
        todo[address] = thinking.plan_list(
            wanted.lists.get(address, {}),
            found.get(address, {}),
            known.get(address, ()),
            managed=address in options["managed"],
            removes=address not in wanted.faulty,
            compared=wanted.compared,
        )
    return todo, {address: len(found.get(address, {})) for address in differing}, prints


def write(options, database, wanted, meant, changes):
    """Write what changes, tell the daemons, and return the fingerprints that the database has now."""
    database.write(sympa_door.subscriber_statements(changes, int(time.time())))
    sympa_door.Folders("", options["home"], options["owner"]).touch(changes, "member")
    prints = fingerprints(database, wanted.compared)
    thinking.refuse_other_than_wanted(changes, options["managed"], wanted.faulty, meant, prints)
    return prints


def main():
    """Read, plan, write."""
    names = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "lists": {**names, "required": True},
            "managed": {**names, "default": []},
            "closed": {**names, "default": []},
            "confirm_removals": {**names, "default": []},
            "known": {"type": "path", "default": "/var/lib/infini-sympa/known.json"},
            "database": {"type": "str", "default": "sympa"},
            "home": {"type": "path", "default": "/var/lib/sympa/list_data"},
            "owner": {"type": "str", "default": sympa_door.USER},
        },
        supports_check_mode=True,
    )
    options, started = module.params, time.monotonic()
    options["managed"] = frozenset(options["managed"])
    database = sympa_door.Database(options["database"])
    if module.check_mode and not Path(options["home"]).is_dir():  # no Sympa yet
        module.exit_json(changed=True, **NOTHING, subscriptions=0, left=0, emptied=[], faults=[], seconds=0.0)
    if not Path(options["src"]).is_file():
        module.fail_json(msg=f"the file of subscribers {options['src']} is not there: write it first")
    if not module.check_mode:
        sympa_door.remove_lines()
    try:
        memory = Memory(options)
        settled = memory.answer(database)
        if settled is not None:
            module.exit_json(changed=False, **NOTHING, **settled, seconds=round(time.monotonic() - started, 2))
        wanted = parse(options)
        known = sympa_door.load_known(memory.path)
        meant = wanted.prints()
        todo, counts, prints = plans(options, wanted, meant, database, known)
        thinking.refuse_mass_removals(todo, counts, options["confirm_removals"])
        changes = {address: one for address, one in todo.items() if one.changed}
        answer = {
            "left": sum(len(one.left) for one in todo.values()),
            "subscriptions": sum(map(len, wanted.lists.values())),
            "faults": wanted.faults[: sympa.MANY],
        }
        emptied = answer["emptied"] = thinking.emptied(todo, counts)
        if emptied:
            module.warn(
                f"{len(emptied)} lists have nobody left of those whom the file named before, {emptied[0]} the first of "
                "them: if they did not all unsubscribe, the database was lost. Restore it, or delete "
                f"{memory.path} to have the file fill them again"
            )
        if not module.check_mode:
            prints = write(options, database, wanted, meant, changes) if changes else prints
            sympa_door.save_known(memory.path, thinking.known_after(wanted, known, options["lists"], options["closed"]))
            if not (wanted.faults or emptied):
                memory.keep(wanted.compared, prints, answer)
    except (sympa.SympaError, UnsafePlanError) as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": bool(changes),
        "added": sum(len(one.add) for one in todo.values()),
        "mended": sum(len(one.mend) for one in todo.values()),
        "removed": sum(len(one.remove) for one in todo.values()),
        **answer,
        "seconds": round(time.monotonic() - started, 2),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "diff": {"before": "", "after": "".join(f"{address}: {one.words()}\n" for address, one in changes.items())},
    }
    if wanted.faults:
        first = "\n".join(answer["faults"])
        module.fail_json(
            msg=f"lines of {options['src']} that cannot be followed: {len(wanted.faults)}; "
            f"all others are in force:\n{first}",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
