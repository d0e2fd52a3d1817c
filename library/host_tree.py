#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_tree
short_description: Make a host look like a role's tree
version_added: "0.1.0"
description:
  - Every file of a role stands under C(roles/<role>/tree/) at the path it has on the host. One task writes them all.
  - "Files ending in C(.j2) lose the ending: they are rendered on the control node by plain Jinja with the host's
    variables. An undefined variable is an error, C(trim_blocks) and C(lstrip_blocks) are on, Ansible's filters and
    tests are there. Templates may include others from C(roles/<role>/templates/)."
  - "C(roles/<role>/tree.yml) beside the tree gives owners, modes and secrets by pattern, directories, files that
    repeat (C(each)), directories that are ours alone (C(owned)), files that must not exist (C(absent)), commands that
    judge the result (C(validate)) and handlers (C(notify)). Patterns know C(*), C(?) and C(**); later ones win."
  - A small tree travels whole, of a large one only hashes until something differs. What differs is written as one
    transaction; a failed validation, an error or a kill puts everything back, the latter at the next run.
  - A file edited by hand since it was written is refused, unless the variable C(host_tree_overwrite) (a list of paths
    or patterns) names it. So is a file that was there before and is not as its package ships it, unless it is marked
    C(adopt).
  - A plan that removes more than 30 % of the files of a directory (more than 2 when there are fewer than 10) is
    refused, unless the variable C(host_tree_allow_removal) lists the directory.
  - A validation marked C(quarantine) costs only the files that its command names; they stand as before (or are absent),
    all others are written, and every run says so and tries again until they are mended. The file that the command
    names last goes first, then it judges again; if it names none, everything is put back.
  - "Handlers named in C(notify) are called for the files that changed. When the play has the handler C(Confirm the
    trees) (M(host_tree) with O(confirm=true)), those that a broken run still owes are called by the next."
  - C(Reload X) is left out when C(Restart X) is called as well.
options:
  source:
    description: The directory that holds the tree; its sidecar stands beside it and is named like it, with C(.yml).
    type: path
    default: "{{ role_path }}/tree"
  name:
    description: The name under which the host remembers what it was given; the role's name by default.
    type: str
  confirm:
    description: Write nothing, but note that the handlers of this run have run. Only useful in a handler.
    type: bool
    default: false
  left:
    description:
      - What an earlier task of the same tree with O(prune=false) said that it left. Only this is removed, and nothing
        is written.
    type: list
    elements: str
  prune:
    description:
      - Whether to remove what the tree does not declare any more. C(false) leaves that to a later task of the same
        tree, says what is left, and has the brake and hand edits judged already.
    type: bool
    default: true
  request:
    description: What the action plugin tells the host. Not for playbooks.
    type: str
  contents:
    description: The contents that may differ, from the action plugin. Not for playbooks.
    type: str
attributes:
  check_mode:
    description: Says what would change and touches nothing.
    support: full
  diff_mode:
    description: Shows a unified diff of each file, never of a secret one.
    support: full
author: Infini
"""

EXAMPLES = r"""
- name: Write the tree
  host_tree: {}

# roles/front/tree.yml
# files:
#   "etc/haproxy/certs/**": {mode: "0600", secret: true}
# owned: [etc/haproxy/certs]
# validate:
#   - files: ["etc/haproxy/**"]
#     command: [haproxy, -c, -f, /etc/haproxy/haproxy.cfg]
#   - files: ["etc/haproxy/sites/*"]
#     command: [haproxy, -c, -f, /etc/haproxy/haproxy.cfg, -f, /etc/haproxy/sites]
#     quarantine: true
# notify:
#   "etc/haproxy/**": Reload HAProxy

# At the end of a play, after the handlers of its roles:
# handlers:
#   - name: Confirm the trees
#     host_tree:
#       confirm: true
"""

RETURN = r"""
changes:
  description: What differed, path by path.
  type: list
  elements: dict
  returned: always
  sample: [{path: /etc/haproxy/haproxy.cfg, action: write}]
notify:
  description: The handlers that were called.
  type: list
  elements: str
  returned: always
seconds:
  description: Where the time went, in rendering here and in comparing and writing there.
  type: dict
  returned: always
  sample: {render: 0.05, host: 0.4}
left:
  description: The files that are no longer declared and that a later task of this tree removes.
  type: list
  elements: str
  returned: always
quarantined:
  description: The files that a validation refused and that stand as before, each with the reason it gave.
  type: list
  elements: dict
  returned: always
  sample: [{path: /etc/apache2/members/velo.test.conf, reason: "Invalid command 'Requires'"}]
put_back:
  description: The files that an interrupted run had touched and that were put back first.
  type: list
  elements: str
  returned: when there were any
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.tree_door import answer


def main() -> None:
    """Hand what the action plugin sent to the engine, return what it says."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path"},
            "name": {"type": "str"},
            "confirm": {"type": "bool", "default": False},
            "left": {"type": "list", "elements": "str"},
            "prune": {"type": "bool", "default": True},
            "request": {"type": "str", "no_log": True},
            "contents": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if module.params["request"] is None:
        module.fail_json(msg="host_tree needs its action plugin: set action_plugins in ansible.cfg, as here")
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    # Without an invocation of our own, Ansible would send the whole request back.
    result["invocation"] = {}
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
