#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gandi_zone_export
short_description: Read all that lives at Gandi for some domains
description:
  - Reads records, redirections, glue, DNSSEC keys and the names of mailboxes and forwards, and compares what Gandi
    counts with what it gave. Nothing changes at Gandi.
  - With O(dest) each export is kept on the control node as C(NAME.json), and Gandi's own zone file beside it as
    C(NAME.txt), the evidence.
  - Runs on the control node.
options:
  names:
    description: The domains, in ASCII form.
    type: list
    elements: str
    required: true
  dest:
    description: Folder of the control node in which the exports are kept; it must exist.
    type: path
  vault:
    description: The file, encrypted with ansible-vault, that holds the token.
    type: path
    required: true
  variable:
    description: Name of the token in O(vault).
    type: str
    default: vault_gandi_token
  sharing_id:
    description: The organisation at Gandi.
    type: str
  url:
    description: Address of the API.
    type: str
    default: https://api.gandi.net
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Keep what stands at Gandi
  gandi_zone_export:
    names: [velo.example]
    dest: "{{ inventory_dir }}/exports"
    vault: "{{ inventory_dir }}/group_vars/all/vault.yml"
"""

RETURN = r"""
exports:
  description: All that was read of each domain, with the hash that later comparisons name.
  type: list
  elements: dict
  returned: success
  sample:
    - domain: velo.example
      sha256: 6f5902ac237024bdd0c176cb93063dc4
      records: [{rrset_name: "@", rrset_type: A, rrset_ttl: 10800, rrset_values: [192.0.2.1]}]
kept:
  description: Files that were written, or would be.
  type: list
  elements: str
  returned: success
"""

from contextlib import closing
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from infini.domains import doors
from infini.domains.gandi import Gandi


def texts(exports, folder):
    """Return what should stand in the folder, by path; evidence of data that has not changed stays as it is."""
    wanted = {}
    for export in exports:
        data, evidence = (folder / f"{export.domain}.{kind}" for kind in ("json", "txt"))
        wanted[data] = doors.export_text(export)
        same = evidence.exists() and stands(data) == wanted[data]
        wanted[evidence] = stands(evidence) if same else export.text
    return wanted


def stands(path):
    """Return the text of a file, empty when there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def keep(module, wanted):
    """Write the files that differ, each at once or not at all; return (paths, diff)."""
    differing = {path: stands(path) for path, text in wanted.items() if stands(path) != text}
    for path in () if module.check_mode else differing:
        new = Path(module.tmpdir, path.name)
        new.write_text(wanted[path], encoding="utf-8")
        module.atomic_move(str(new), str(path))
    diff = [
        {"before_header": str(path), "after_header": str(path), "before": before, "after": wanted[path]}
        for path, before in differing.items()
    ]
    return sorted(map(str, differing)), diff


def main() -> None:
    """Read, and keep what is new."""
    module = AnsibleModule(
        {
            "names": {"type": "list", "elements": "str", "required": True},
            "dest": {"type": "path"},
            "vault": {"type": "path", "required": True},
            "variable": {"type": "str", "default": "vault_gandi_token"},
            "sharing_id": {"type": "str"},
            "url": {"type": "str", "default": "https://api.gandi.net"},
        },
        supports_check_mode=True,
    )
    params = module.params
    folder = Path(params["dest"]) if params["dest"] else None
    if folder and not folder.is_dir():
        module.fail_json(msg=f"There is no folder {folder} for the exports: make it, closed to others")
    token = doors.token(Path(params["vault"]), params["variable"])
    gandi = Gandi(token, doors.WallClock(), params["url"], params["sharing_id"])
    with doors.sentences(module.fail_json), closing(gandi):
        exports = [gandi.export(name) for name in params["names"]]
    kept, diff = keep(module, texts(exports, folder)) if folder else ([], [])
    module.exit_json(changed=bool(kept), exports=doors.plain(exports), kept=kept, diff=diff)


if __name__ == "__main__":
    main()
