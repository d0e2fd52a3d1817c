#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mariadb_databases
short_description: Own the whole set of MariaDB databases and their users
description:
  - Creates and marks the declared databases; their users get every privilege on them and none elsewhere.
  - Users (at localhost) that are no longer declared are locked and disconnected. Databases are never dropped.
  - A database that exists and is not marked as its declared user's is refused unless it is confirmed by name.
  - Talks to the server through the local socket, with the rights of the Unix account root.
options:
  databases:
    description: The whole set; a user may have several databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the database., type: str, required: true}
      user: {description: Its user; without password known by the Unix account of that name., type: str, required: true}
      password: {description: Password of the user., type: str}
  confirm_locks:
    description: Users that may be locked although they are many at once.
    type: list
    elements: str
    default: []
  confirm_takeovers:
    description: Databases that may be handed to their declared user although they exist and are not that user's.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the members' databases
  mariadb_databases:
    databases:
      - {name: velo_spip, user: velo}
"""

RETURN = r"""
databases: {description: Databases created or marked now., type: list, elements: str, returned: always}
users: {description: Users created, mended or locked now., type: list, elements: str, returned: always}
locked: {description: Users locked now., type: list, elements: str, returned: always}
kept: {description: Databases of ours that are no longer declared., type: list, elements: str, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import databases as thinking
from ansible.module_utils.hosting.brake import UnsafePlanError


class Client:
    """The server of this host, through its own client."""

    def __init__(self, module):
        self.module = module
        self.program = module.get_bin_path("mariadb")

    def query(self, sql):
        """Run SQL from standard input, where nobody reads along; return (code, output, errors)."""
        argv = [self.program, "--protocol=socket", "--user=root", "--batch", "--default-character-set=utf8mb4"]
        return self.module.run_command(argv, data=sql, binary_data=True)

    def read(self):
        """Return the server's state; in check mode an absent server is an empty one."""
        code, out, err = self.query(thinking.READ) if self.program else (1, "", "its client is not installed")
        if code == 0:
            return thinking.parse_server(out)
        if self.module.check_mode:
            return thinking.Server()
        return self.module.fail_json(
            msg=f"MariaDB does not answer on this host ({err.strip()}): is the service started?"
        )

    def write(self, statements):
        """Run the statements in order; stop at the first that fails."""
        code, _out, err = self.query("".join(f"{statement};\n" for statement in statements))
        if code != 0:
            self.module.fail_json(msg=f"MariaDB refused a change: {err.strip()}")


def main():
    """Read, plan, write."""
    spec = {
        "name": {"type": "str", "required": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "databases": {"type": "list", "elements": "dict", "required": True, "options": spec},
            "confirm_locks": {"type": "list", "elements": "str", "default": []},
            "confirm_takeovers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    client, wanted = Client(module), module.params["databases"]
    server = client.read()
    try:
        plan = thinking.plan(wanted, server, module.params["confirm_locks"], module.params["confirm_takeovers"])
    except (thinking.DatabasesError, UnsafePlanError) as error:
        module.fail_json(msg=str(error))
    if plan.changed and not module.check_mode:
        client.write(plan.statements())
    ours = {database.name for database in server.databases.values() if database.user}
    module.exit_json(
        changed=plan.changed,
        databases=[database.name for database in plan.databases],
        users=[user.name for user in plan.users],
        locked=plan.locked,
        kept=sorted(ours - {entry["name"] for entry in wanted}),
        diff=plan.diff(),
    )


if __name__ == "__main__":
    main()
