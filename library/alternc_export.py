#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: alternc_export
short_description: Write down everything an AlternC panel holds
description:
  - Gives the data that the other C(alternc_*) modules take, so that a panel can be owned, moved or compared.
  - Only reads the panel's database. AlternC's own DKIM rows, addresses of mailing lists and what is about to be
    deleted are left out,
    and so are quotas that are those of the member's profile.
options:
  dest:
    description: File on the host, JSON, for root alone; without it the data is in the result.
    type: path
  member:
    description: Login of the only member to export, without the panel's own types and variables.
    type: str
    default: ""
  anonymise:
    description:
      - Whether every name, address, login, domain, folder, text and target is replaced, the same always by the same.
      - Counts, owners, types, quotas, flags and lengths stay. The key of the replacement is random and thrown away,
        so every export differs.
    type: bool
    default: false
  secrets:
    description:
      - Whether hashes of passwords, and the passwords that AlternC keeps in clear, are in the file; never in the
        result.
    type: bool
    default: false
  each:
    description: Whether the counts of each member are given, too.
    type: bool
    default: false
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Write down the whole panel, to rehearse its move with nobody's names
  alternc_export:
    dest: /var/backups/panel.json
    anonymise: true
"""

RETURN = r"""
counts: {description: How many things of each kind there are., type: dict, returned: always}
data: {description: Everything., type: dict, returned: without O(dest) and O(each)}
holds: {description: Counts by login., type: dict, returned: with O(each)}
"""

import json
import os
import secrets
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import alternc_door
from ansible.module_utils.hosting import alternc_export as thinking


def write(module, dest, text):
    """Write the file for root alone, whole or not at all; return whether it differs."""
    if dest.is_file() and dest.read_text(encoding="utf-8") == text and dest.stat().st_mode & 0o777 == 0o600:
        return False
    if module.check_mode:
        return True
    handle, draft = tempfile.mkstemp(dir=module.tmpdir)  # 0600 from its first byte
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        Path(draft).unlink()
        module.fail_json(msg=f"{dest} cannot be written ({error.strerror}): make room on the disk; nothing was changed")
    module.atomic_move(draft, str(dest))
    module.set_mode_if_different(str(dest), "0600", True)
    return True


def main():
    """Read, and write down."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path"},
            "member": {"type": "str", "default": ""},
            "anonymise": {"type": "bool", "default": False},
            "secrets": {"type": "bool", "default": False, "no_log": False},
            "each": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        panel = alternc_door.read()
    except alternc_door.PanelError as error:
        module.fail_json(msg=str(error))
    if options["secrets"] and (options["anonymise"] or not options["dest"]):
        module.fail_json(msg="secrets are written to a file and never anonymised: give dest, and leave anonymise out")
    if options["member"] and options["member"] not in panel.by("members", "login"):
        module.fail_json(msg=f"{options['member']} is no member of this panel: give the login of one")
    data = thinking.export(panel, options["member"], options["secrets"])
    if options["anonymise"]:
        targets = {row["name"]: row["target"] for row in panel.rows("domain_types")}
        data = thinking.anonymise(data, targets, secrets.token_bytes(32))
    result = {"changed": False, "counts": thinking.counts(data)}
    if options["dest"]:
        text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        result["changed"] = write(module, Path(options["dest"]), text)
    elif options["each"]:
        result["holds"] = {
            row["login"]: thinking.counts(thinking.export(panel, row["login"])) for row in panel.rows("members")
        }
    else:
        result["data"] = data
    module.exit_json(**result)


if __name__ == "__main__":
    main()
