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
  - Writes Sympa's tables directly; nobody is sent any mail. Of the file travels what has changed since the last run, or
    what the database no longer holds as that run left it.
options:
  src:
    description:
      - File on the control node, a subscription a line, columns parted by tabs; the first line names them, C(list) and
        C(email) first, then any of C(name), C(reception), C(visibility) and C(date) (seconds since 1970).
      - A column that is not there is left to the subscribers; C(date) counts for new ones only.
    type: path
    required: true
  header:
    description: The file's first line, from the action plugin. Not for playbooks.
    type: str
    required: true
  sums:
    description: What the file says of each list, as sums, from the action plugin. Not for playbooks.
    type: dict
    required: true
  need:
    description: Lists whose lines are sent, from the action plugin. Not for playbooks.
    type: list
    elements: str
  runs:
    description: Numbers of the lines that are sent, from the action plugin. Not for playbooks.
    type: list
    elements: raw
  lines:
    description: Where the lines that are sent stand on the host, from the action plugin. Not for playbooks.
    type: path
    default: /var/cache/infini-sympa-subscribers.tsv
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
    src: donnees/abonnes.tsv
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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.sympa_subscribers_door import LETTER, SPEC, answer


def main():
    """Hand the question to the engine, return what it says; the action plugin does so without a module's weight."""
    module = AnsibleModule(argument_spec={**SPEC, **LETTER}, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
