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
  - The one that was replaced stays beside it as C(VERSION.old) until the next build - masters that still run use it.
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
unused: {description: Trees that stand there and are no longer declared., type: list, elements: str, returned: always}
"""

import fcntl
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

STAMP = "etc/infini-tree.json"
# mmdebstrap adds the security updates of a Debian release by itself; this keeps them out where the archive lost some.
NO_SECURITY = (
    r"printf 'Package: *\nPin: release n=%s-security\nPin-Priority: -1\n'"
    ' > "$1/etc/apt/preferences.d/no-security"'
)


def description(tree):
    """Return what a tree is built from: two trees with equal descriptions are the same."""
    return {
        "packages": sorted(tree["packages"]),
        "security": tree["security"],
        "suite": tree["suite"],
        "version": tree["version"],
    }


def plan(current, wanted):
    """Return (versions to build, versions that nobody declares), from descriptions by version."""
    build = [version for version in wanted if current.get(version) != wanted[version]]
    return build, sorted(set(current) - set(wanted))


def read(directory):
    """Return the descriptions of the trees that stand there; one without a readable stamp counts as unknown."""
    current = {}
    for root in directory.iterdir() if directory.is_dir() else ():
        if root.is_dir() and not root.name.endswith((".new", ".old")):
            current[root.name] = stamp(root)
    return current


def stamp(root):
    """Return the description of a finished tree, None of one that is missing or unfinished."""
    try:
        return json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return None


def command(tree, target):
    """Return the mmdebstrap call for a tree."""
    words = ["mmdebstrap", "--quiet", "--variant=apt", "--include=" + ",".join(tree["packages"])]
    if not tree["security"]:
        words.append("--setup-hook=" + NO_SECURITY % tree["suite"])
    return [*words, tree["suite"], str(target)]


def clear(path):
    """Remove what an earlier build left, never through a file system that is still mounted in it."""
    if path.exists():
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{path}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(path)


def prepare(directory, tree):
    """Build one tree beside the one in use, unless it is there. Return None, or why it could not be built."""
    new = directory / f"{tree['version']}.new"
    if stamp(new) == description(tree):
        return None
    clear(new)
    done = subprocess.run(command(tree, new), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        clear(new)
        return next((line for line in done.stderr.splitlines() if line.startswith("E:")), done.stderr[-500:].strip())
    (new / STAMP).write_text(json.dumps(description(tree)))
    return None


def put_in_place(directory, version):
    """Let a prepared tree take the place of the one in use."""
    root = directory / version
    new, old = Path(f"{root}.new"), Path(f"{root}.old")
    clear(old)
    if root.exists():
        root.rename(old)
    new.rename(root)


def build_all(directory, trees):
    """Prepare the trees, several at a time. Return why, by version, for those that could not be built."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        reasons = workers.map(lambda tree: prepare(directory, tree), trees)
        return {tree["version"]: why for tree, why in zip(trees, reasons) if why}


@contextmanager
def alone(directory):
    """Wait for another build on this host; the kernel forgets the lock of a killed one."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main():
    """Read, plan, build."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/srv/php"},
            "prepare": {"type": "bool", "default": False},
            "trees": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "version": {"type": "str", "required": True},
                    "suite": {"type": "str", "required": True},
                    "packages": {"type": "list", "elements": "str", "required": True},
                    "security": {"type": "bool", "default": True},
                },
            },
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    trees = {tree["version"]: tree for tree in module.params["trees"]}
    wanted = {version: description(tree) for version, tree in trees.items()}
    if module.params["prepare"]:
        os.nice(19)  # what is in the foreground goes first
    with nullcontext() if module.check_mode else alone(directory):
        current = read(directory)
        todo, unused = plan(current, wanted)
        failures = {} if module.check_mode else build_all(directory, [trees[version] for version in todo])
        if not module.check_mode and not module.params["prepare"]:
            for version in set(todo) - set(failures):
                put_in_place(directory, version)
    if failures:
        failed = [f"PHP {version} ({trees[version]['suite']}): {why}" for version, why in failures.items()]
        module.fail_json(
            msg="Could not build " + "; ".join(failed) + " - sites on these versions stay as they were. "
            "Where the archive lacks a package, set `security: false` for the runtime or take another suite.",
            changed=len(failures) < len(todo),
        )
    module.exit_json(
        changed=bool(todo) and not module.params["prepare"],
        built=todo,
        unused=unused,
        diff={"before": lines(current, todo), "after": lines(wanted, todo)},
    )


def lines(descriptions, versions):
    """Return the descriptions as text for a diff."""
    return "".join(f"{v}: {json.dumps(descriptions[v])}\n" for v in versions if descriptions.get(v))


if __name__ == "__main__":
    main()
