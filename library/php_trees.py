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

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import php as thinking
from ansible.module_utils.hosting.cms_pictures import apt_options

STAMP = "etc/infini-tree.json"
STATUS = "var/lib/dpkg/status"
PROCESSES = Path("/proc")
AT_FDCWD, RENAME_EXCHANGE = -100, 2
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
    """Let a prepared tree take the place of the one in use; whoever looks meanwhile finds one of the two."""
    root = directory / version
    new, old = Path(f"{root}.new"), Path(f"{root}.old")
    clear(old)
    if root.exists():
        exchange(new, root)
        new.rename(old)
    else:
        new.rename(root)


def exchange(one, other):
    """Let two directories change names in one instant, which Python has no function for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def roots_in_use():
    """Return which directories processes have as their root, as (device, inode)."""
    found = set()
    for root in PROCESSES.glob("[0-9]*/root"):
        with suppress(OSError):  # it has ended meanwhile
            found.add(identity(root))
    return found


def identity(directory):
    """Return what a directory is known by, whatever it is called."""
    status = directory.stat()
    return status.st_dev, status.st_ino


def installed(root):
    """Return the versions of a tree's packages by name."""
    return thinking.installed((root / STATUS).read_text())


def newer(root):
    """Return what the release has newer than the tree: by this host's apt, which writes nothing into the tree."""
    with tempfile.TemporaryDirectory(prefix="infini-php-") as state:
        options = [*apt_options(root, Path(state)), "-o", f"Dir::State::status={root / STATUS}"]
        words = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
        for action in (["update"], ["--simulate", "dist-upgrade"]):
            done = subprocess.run(["apt-get", "-qq", *options, *action], **words)
            if done.returncode != 0:
                raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    return thinking.upgrades(done.stdout)


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


def spec():
    """Return the module's options."""
    tree = {
        "version": {"type": "str", "required": True},
        "suite": {"type": "str", "required": True},
        "packages": {"type": "list", "elements": "str", "required": True},
        "security": {"type": "bool", "default": True},
    }
    return {
        "directory": {"type": "path", "default": "/srv/php"},
        "state": {"type": "str", "choices": ["present", "latest", "previous"], "default": "present"},
        "force": {"type": "bool", "default": False},
        "prepare": {"type": "bool", "default": False},
        "trees": {"type": "list", "elements": "dict", "required": True, "options": tree},
    }


class Trees:
    """The trees of this host, and what is wanted of them."""

    def __init__(self, module):
        self.module = module
        self.directory = Path(module.params["directory"])
        self.trees = {tree["version"]: tree for tree in module.params["trees"]}
        self.wanted = {version: description(tree) for version, tree in self.trees.items()}

    def present(self):
        """Build what is missing; return the result."""
        current = read(self.directory)
        todo, unused = plan(current, self.wanted)
        outdated = [] if self.module.params["prepare"] else self.outdated()
        if not self.module.check_mode:
            self.build(todo)
            if not self.module.params["prepare"]:
                for version in todo:
                    put_in_place(self.directory, version)
        return {
            "changed": bool(todo or outdated) and not self.module.params["prepare"],
            "built": todo,
            "packages": {},
            "outdated": outdated,
            "unused": unused,
            "diff": {"before": lines(current, todo), "after": lines(self.wanted, todo)},
        }

    def outdated(self):
        """Return the versions whose masters still run in the tree before: a run ended between exchange and restart."""
        olds = {version: self.directory / f"{version}.old" for version in self.wanted}
        used = roots_in_use()
        return [version for version, old in olds.items() if old.exists() and identity(old) in used]

    def latest(self):
        """Build anew what its release has newer; return the result."""
        current = read(self.directory)
        todo, unused = plan(current, self.wanted)
        packages = {version: [] for version in todo}
        for version in set(self.wanted) - set(todo):
            found = self.newer(version)
            if found or self.module.params["force"]:
                packages[version] = found
        if not self.module.check_mode:
            packages = self.renew(packages)
        return {"changed": bool(packages), "built": sorted(packages), "packages": packages, "unused": unused}

    def newer(self, version):
        """Return what the release of a tree has newer."""
        try:
            return newer(self.directory / version)
        except RuntimeError as problem:
            self.module.fail_json(
                msg=f"The release of PHP {version} ({self.trees[version]['suite']}) cannot be asked for its updates: "
                f"{problem} - nothing was touched. Is the package mirror reachable?"
            )

    def renew(self, versions):
        """Build these beside and put in place those that came out different; return what differs in each."""
        for version in versions:
            clear(self.directory / f"{version}.new")  # prepared on another day
        self.build(versions)
        packages = {}
        for version in versions:
            root = self.directory / version
            new = Path(f"{root}.new")
            before = installed(root) if (root / STATUS).exists() else {}
            changes = thinking.package_changes(before, installed(new))
            if changes or self.module.params["force"]:
                put_in_place(self.directory, version)
                packages[version] = changes
            else:
                clear(new)
        return packages

    def previous(self):
        """Let each tree and the one it replaced change places; return the result."""
        packages = {}
        for version in self.wanted:
            root = self.directory / version
            old = Path(f"{root}.old")
            if stamp(old) is None or stamp(root) is None:
                self.module.fail_json(
                    msg=f"No earlier tree of PHP {version} is kept on this host: there is one once it was updated. "
                    "Nothing was touched."
                )
            packages[version] = thinking.package_changes(installed(root), installed(old))
        if not self.module.check_mode:
            for version in packages:
                exchange(self.directory / version, self.directory / f"{version}.old")
        return {"changed": bool(packages), "built": sorted(packages), "packages": packages, "unused": []}

    def build(self, versions):
        """Build trees beside those in use; what can be built is put in place even where another cannot."""
        failures = build_all(self.directory, [self.trees[version] for version in versions])
        if not failures:
            return
        built = set(versions) - set(failures)
        if not self.module.params["prepare"]:
            for version in built:
                put_in_place(self.directory, version)
        failed = [f"PHP {version} ({self.trees[version]['suite']}): {why}" for version, why in failures.items()]
        self.module.fail_json(
            msg="Could not build " + "; ".join(failed) + " - sites on these versions stay as they were. "
            "Where the archive lacks a package, set `security: false` for the runtime or take another suite.",
            changed=bool(built),
        )


def main():
    """Read, plan, build."""
    module = AnsibleModule(argument_spec=spec(), supports_check_mode=True)
    params = module.params
    if params["prepare"] or params["state"] == "latest":
        os.nice(19)  # what is in the foreground, or serves visitors, goes first
    trees = Trees(module)
    with nullcontext() if module.check_mode else alone(trees.directory):
        result = getattr(trees, params["state"])()
    module.exit_json(**result)


def lines(descriptions, versions):
    """Return the descriptions as text for a diff."""
    return "".join(f"{v}: {json.dumps(descriptions[v])}\n" for v in versions if descriptions.get(v))


if __name__ == "__main__":
    main()
