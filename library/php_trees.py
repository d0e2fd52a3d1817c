#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: php_trees
short_description: Own the Debian trees that hold the PHP versions of other releases
description:
  - Builds with mmdebstrap, in parallel, the trees that are absent or were built from another description.
  - A tree is built beside the old one and takes its place in one step; a failed build leaves the old one as it was.
  - The one that was replaced stays beside it as C(VERSION.old) until the next build - masters that still run use it,
    and O(state=previous) takes it back.
  - Trees that are no longer declared are named, never removed.
options:
  directory:
    description: Where the trees stand, each under its version.
    type: path
    default: /srv/php
  trees:
    description: The whole set.
    type: list
    elements: dict
    required: true
    suboptions:
      version: {description: Version of PHP, the name of the tree., type: str, required: true}
      suite: {description: Debian release that has this version., type: str, required: true}
      packages: {description: Packages of the tree., type: list, elements: str, required: true}
      security: {description: Whether the release's security updates are used., type: bool, default: true}
  state:
    description:
      - V(present) builds what is absent or was built from another description.
      - V(latest) also builds anew the trees whose release has newer packages by now.
      - V(previous) lets each tree and the one it replaced change places; twice is as before.
    type: str
    choices: [present, latest, previous]
    default: present
  force:
    description: With O(state=latest), build anew even where the release has nothing newer.
    type: bool
    default: false
  prepare:
    description:
      - Only build what is missing beside the trees in use. The next call waits for it and puts it in place.
      - Meant for the background, since a build takes longer than all that can be done meanwhile.
    type: bool
    default: false
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Build the trees
  php_trees:
    trees:
      - {version: "7.4", suite: bullseye, packages: [php7.4-fpm, php7.4-mysql]}
"""

RETURN = r"""
built:
  description: Versions put in place now, or that would be. With O(prepare), those that wait to be.
  type: list
  elements: str
  returned: always
packages:
  description:
    - What is, or would be, different in the packages of each version put in place, with O(state=latest) and
      O(state=previous).
  type: dict
  returned: always
  sample: {"7.4": ["libssl1.1 1.1.1n-0+deb11u5 -> 1.1.1w-0+deb11u1"]}
outdated:
  description:
    - With O(state=present), versions of which something still runs in the tree before, as after a run that was killed.
  type: list
  elements: str
  returned: with O(state=present)
unused: {description: Trees that stand there and are no longer declared., type: list, elements: str, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.php_door import SPEC, answer


def main() -> None:
    """Hand the set to the engine, return what it says; the action plugin does so without the weight of a module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = answer(module.params, check_mode=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
