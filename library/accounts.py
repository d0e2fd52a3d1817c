#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: accounts
short_description: Own the whole set of Unix accounts of a group
description:
  - Creates and mends the declared accounts; each has a private group, O(group) and its own list of groups.
  - Accounts no longer declared are locked, lose their other groups and their sessions; they are never deleted.
  - A login that the host already uses outside of the group is refused before anything is changed.
options:
  group:
    description: The group that makes an account ours; created where missing.
    type: str
    required: true
  accounts:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Login., type: str, required: true}
      uid: {description: User number; the next free one by default., type: int}
      home: {description: Home directory., type: path, required: true}
      shell: {description: Login shell., type: str, default: /bin/bash}
      comment: {description: Who it is., type: str, default: ""}
      password_hash: {description: Hash in crypt format; without it no password fits., type: str}
      groups: {description: Supplementary groups beside O(group)., type: list, elements: str, default: []}
  create_homes:
    description: Whether homes are made from F(/etc/skel); V(false) where something else makes them.
    type: bool
    default: false
  confirm_locks:
    description: Logins that may be locked although they are many at once.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the accounts of the technicians
  accounts:
    group: techs
    create_homes: true
    accounts:
      - {name: tech1, home: /home/tech1, comment: First technician, groups: [sudo]}
"""

RETURN = r"""
created: {description: Accounts created now., type: list, elements: str, returned: always}
mended: {description: Accounts changed now., type: list, elements: str, returned: always}
locked: {description: Accounts locked now., type: list, elements: str, returned: always}
ended: {description: Accounts whose sessions were ended now., type: list, elements: str, returned: always}
kept: {description: Locked accounts that are no longer declared., type: list, elements: str, returned: always}
"""

import contextlib
import grp
import os
import pwd
import signal
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import accounts as thinking
from ansible.module_utils.hosting.brake import UnsafePlanError

SHADOW = Path("/etc/shadow")
PROCESSES = Path("/proc")
PATIENCE = 3.0  # seconds between asking a session to end and ending it


def read_shadow():
    """Return password field and expiry day by login."""
    lines = (line.split(":") for line in SHADOW.read_text(encoding="utf-8").splitlines())
    return {entry[0]: (entry[1], int(entry[7]) if entry[7] else None) for entry in lines if len(entry) > 7}


def owner_of(process, namespace):
    """Return the user number a process runs as; None where it ended or is inside a container."""
    try:
        if (process / "ns/pid").readlink() != namespace:
            return None
        # Not the owner of the entry in /proc: sshd's and ssh-agent's entries belong to root whoever runs them.
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(status.split("\nUid:", 1)[1].split()[0])


def processes_by_uid():
    """Return the process numbers of each user number."""
    found, namespace = {}, (PROCESSES / "self/ns/pid").readlink()
    for process in PROCESSES.glob("[0-9]*"):
        found.setdefault(owner_of(process, namespace), []).append(int(process.name))
    return found


def read_host(owner):
    """Read the accounts of the owning group, everybody's names and who has processes."""
    people, groups, shadow, processes = pwd.getpwall(), grp.getgrall(), read_shadow(), processes_by_uid()
    memberships = {}
    for group in groups:
        for name in group.gr_mem:
            memberships.setdefault(name, set()).add(group.gr_name)
    ours = {}
    for person in people:
        if owner in memberships.get(person.pw_name, ()):
            password, expires = shadow.get(person.pw_name, (thinking.NO_PASSWORD, None))
            ours[person.pw_name] = thinking.Account(
                name=person.pw_name,
                home=person.pw_dir,
                shell=person.pw_shell,
                comment=person.pw_gecos,
                uid=person.pw_uid,
                password=password,
                expires=expires,
                groups=frozenset(memberships[person.pw_name]),
            )
    return thinking.Host(
        accounts=ours,
        uids={person.pw_name: person.pw_uid for person in people},
        groups={group.gr_name for group in groups},
        busy=frozenset(name for name, account in ours.items() if account.uid in processes),
    )


class Writer:
    """Carries a plan out with the host's own tools."""

    def __init__(self, module):
        self.module = module

    def run(self, *argv, data=None):
        """Run a command; fail with its own words."""
        code, _out, err = self.module.run_command(list(argv), data=data, binary_data=True)
        if code != 0:
            self.module.fail_json(msg=f"`{argv[0]}` failed for {argv[-1]}: {err.strip()}")

    def apply(self, plan):
        """Lock first, so that a failure later leaves nobody in who should be out."""
        if plan.create_owner:
            self.run("groupadd", plan.owner)
        for change in plan.locks:
            self.modify(change)
        leaving = {*plan.end_sessions, *(change.after.name for change in plan.locks)}
        if leaving:
            # Sessions first: they hold what the account runs as somebody else, by sudo say.
            self.module.run_command(["loginctl", "terminate-user", *sorted(leaving)])
            end_sessions(leaving)
        for change in plan.changes:
            if change.before is None:
                self.create(change.after)
            else:
                self.modify(change)
        self.write_passwords([change.after for change in (*plan.locks, *plan.changes) if change.password_changes])

    def create(self, account):
        """Make the account with its private group."""
        home = ["-K", "HOME_MODE=0700", "-m"] if self.module.params["create_homes"] else ["-M"]
        uid = [] if account.uid is None else ["--uid", str(account.uid)]
        self.run("useradd", "--user-group", *home, *uid, *self.settings(account), account.name)

    def modify(self, change):
        """Set what the account is, whatever it was; the password has its own way."""
        self.run("usermod", *self.settings(change.after), change.after.name)

    @staticmethod
    def settings(account):
        """Return the options that useradd and usermod share."""
        expires = "" if account.expires is None else "1970-01-02"
        return [
            *("-c", account.comment),
            *("-d", account.home),
            *("-s", account.shell),
            *("-G", ",".join(sorted(account.groups))),
            *("-e", expires),
        ]

    def write_passwords(self, accounts):
        """Set password fields through standard input: command lines are read by everybody."""
        if accounts:
            lines = "".join(f"{account.name}:{account.password}\n" for account in accounts)
            self.run("chpasswd", "--encrypted", data=lines)


def end_sessions(names):
    """End every process of these users: asked first, made to after a short while."""
    uids, deadline = {pwd.getpwnam(name).pw_uid for name in names}, time.monotonic() + PATIENCE
    while time.monotonic() < deadline + PATIENCE:
        left = [process for uid, them in processes_by_uid().items() if uid in uids for process in them]
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.kill(process, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.1)


def main():
    """Read, plan, write."""
    spec = {
        "name": {"type": "str", "required": True},
        "uid": {"type": "int"},
        "home": {"type": "path", "required": True},
        "shell": {"type": "str", "default": "/bin/bash"},
        "comment": {"type": "str", "default": ""},
        "password_hash": {"type": "str", "no_log": True},
        "groups": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "group": {"type": "str", "required": True},
            "accounts": {"type": "list", "elements": "dict", "required": True, "options": spec},
            "create_homes": {"type": "bool", "default": False},
            "confirm_locks": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    owner, host = module.params["group"], read_host(module.params["group"])
    try:
        wanted = [thinking.declared(owner, entry) for entry in module.params["accounts"]]
        plan = thinking.plan(owner, wanted, host, os.uname().nodename.split(".")[0], module.params["confirm_locks"])
        if not module.check_mode:
            thinking.refuse_missing_groups(wanted, owner, host)
    except (thinking.AccountsError, UnsafePlanError) as error:
        module.fail_json(msg=str(error))
    if plan.changed and not module.check_mode:
        Writer(module).apply(plan)
    module.exit_json(
        changed=plan.changed,
        created=[change.after.name for change in plan.changes if change.before is None],
        mended=[change.after.name for change in plan.changes if change.before is not None],
        locked=[change.after.name for change in plan.locks],
        ended=plan.end_sessions,
        kept=sorted(set(host.accounts) - {account.name for account in wanted}),
        diff=plan.diff(),
    )


if __name__ == "__main__":
    main()
