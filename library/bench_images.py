#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: bench_images
short_description: Build the images of the staging bench
description:
  - Builds one podman image per Debian release with C(mmdebstrap), several at once.
  - Runs on the control node. The tar files under C(.infini/cache/) make the next build an import of some seconds.
options:
  releases:
    description: Code names of the Debian releases.
    type: list
    elements: str
    required: true
author: Infini
"""

EXAMPLES = r"""
- name: Build the images
  bench_images:
    releases: [bookworm, trixie]
"""

RETURN = r"""
images:
  description: Name of the image of each release.
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from infini import bench
from infini.errors import InfiniError


def main():
    """Be a door to infini.bench.build_images."""
    module = AnsibleModule({"releases": {"type": "list", "elements": "str", "required": True}})
    releases = sorted(set(module.params["releases"]))
    try:
        changed = bench.build_images(releases)
    except InfiniError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, images={release: bench.image(release) for release in releases})


if __name__ == "__main__":
    main()
