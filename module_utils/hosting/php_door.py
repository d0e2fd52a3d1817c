# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to `php_trees`, whichever way the question came: its trees of other Debian releases."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from . import php as thinking
from .cms_pictures import apt_options

SPEC: dict[str, Any] = {
    "directory": {"type": "path", "default": "/srv/php"},
    "state": {"type": "str", "choices": ["present", "latest", "previous"], "default": "present"},
    "force": {"type": "bool", "default": False},
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
}
Tree = Mapping[str, Any]

STAMP = "etc/infini-tree.json"
STATUS = "var/lib/dpkg/status"
PROCESSES = Path("/proc")
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# mmdebstrap adds the security updates of a Debian release by itself; this keeps them out where the archive lost some.
NO_SECURITY = (
    r"printf 'Package: *\nPin: release n=%s-security\nPin-Priority: -1\n'"
    ' > "$1/etc/apt/preferences.d/no-security"'
)


class TreesError(Exception):
    """The wanted trees cannot be had; the message says why, and `changed` whether others were put in place."""

    def __init__(self, message: str, *, changed: bool = False) -> None:
        super().__init__(message)
        self.changed = changed


def answer(asked: Mapping[str, Any], *, check_mode: bool, diff: bool) -> dict[str, Any]:
    """Bring the trees to what is asked and return a result in Ansible's words."""
    if asked["prepare"] or asked["state"] == "latest":
        os.nice(19)  # what is in the foreground, or serves visitors, goes first
    trees = Trees(asked, check_mode=check_mode)
    what = {"present": trees.present, "latest": trees.latest, "previous": trees.previous}[asked["state"]]
    try:
        with nullcontext() if check_mode else alone(trees.directory):
            result = what()
    except TreesError as error:
        return {"failed": True, "msg": str(error), "changed": error.changed}
    except (OSError, subprocess.CalledProcessError) as error:
        return {"failed": True, "msg": f"The trees under {trees.directory} cannot be had: {error}"}
    return result if diff else {key: value for key, value in result.items() if key != "diff"}


def description(tree: Tree) -> Tree:
    """Return what a tree is built from: two trees with equal descriptions are the same."""
    return {
        "packages": sorted(tree["packages"]),
        "security": tree["security"],
        "suite": tree["suite"],
        "version": tree["version"],
    }


def plan(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return (versions to build, versions that nobody declares), from descriptions by version."""
    build = [version for version in wanted if current.get(version) != wanted[version]]
    return build, sorted(set(current) - set(wanted))


def read(directory: Path) -> dict[str, Any]:
    """Return the descriptions of the trees that stand there; one without a readable stamp counts as unknown."""
    current: dict[str, Any] = {}
    for root in directory.iterdir() if directory.is_dir() else ():
        if root.is_dir() and not root.name.endswith((".new", ".old")):
            current[root.name] = stamp(root)
    return current


def stamp(root: Path) -> Any:
    """Return the description of a finished tree, None of one that is missing or unfinished."""
    try:
        return json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return None


def command(tree: Tree, target: Path) -> list[str]:
    """Return the mmdebstrap call for a tree."""
    words = ["mmdebstrap", "--quiet", "--variant=apt", "--include=" + ",".join(tree["packages"])]
    if not tree["security"]:
        words.append("--setup-hook=" + NO_SECURITY % tree["suite"])
    return [*words, tree["suite"], str(target)]


def clear(path: Path) -> None:
    """Remove what an earlier build left, never through a file system that is still mounted in it."""
    if path.exists():
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{path}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(path)


def prepare(directory: Path, tree: Tree) -> str | None:
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


def put_in_place(directory: Path, version: str) -> None:
    """Let a prepared tree take the place of the one in use; whoever looks meanwhile finds one of the two."""
    root = directory / version
    new, old = Path(f"{root}.new"), Path(f"{root}.old")
    clear(old)
    if root.exists():
        exchange(new, root)
        new.rename(old)
    else:
        new.rename(root)


def exchange(one: Path, other: Path) -> None:
    """Let two directories change names in one instant, which Python has no function for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def roots_in_use() -> set[tuple[int, int]]:
    """Return which directories processes have as their root, as (device, inode)."""
    found = set()
    for root in PROCESSES.glob("[0-9]*/root"):
        with suppress(OSError):  # it has ended meanwhile
            found.add(identity(root))
    return found


def identity(directory: Path) -> tuple[int, int]:
    """Return what a directory is known by, whatever it is called."""
    status = directory.stat()
    return status.st_dev, status.st_ino


def installed(root: Path) -> dict[str, str]:
    """Return the versions of a tree's packages by name."""
    return thinking.installed((root / STATUS).read_text())


def newer(root: Path) -> list[str]:
    """Return what the release has newer than the tree: by this host's apt, which writes nothing into the tree."""
    with tempfile.TemporaryDirectory(prefix="infini-php-") as state:
        options = [*apt_options(root, Path(state)), "-o", f"Dir::State::status={root / STATUS}"]
        for action in (["update"], ["--simulate", "dist-upgrade"]):
            done = subprocess.run(
                ["apt-get", "-qq", *options, *action],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise TreesError((done.stderr.strip() or done.stdout.strip() or "apt said nothing").splitlines()[-1])
    return thinking.upgrades(done.stdout)


def build_all(directory: Path, trees: Sequence[Tree]) -> dict[str, str]:
    """Prepare the trees, several at a time. Return why, by version, for those that could not be built."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        reasons = workers.map(lambda tree: prepare(directory, tree), trees)
        return {tree["version"]: why for tree, why in zip(trees, reasons) if why}


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait for another build on this host; the kernel forgets the lock of a killed one."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Trees:
    """The trees of this host, and what is wanted of them."""

    def __init__(self, asked: Mapping[str, Any], *, check_mode: bool) -> None:
        self.asked = asked
        self.check_mode = check_mode
        self.directory = Path(asked["directory"])
        self.trees: dict[str, Tree] = {tree["version"]: tree for tree in asked["trees"]}
        self.wanted = {version: description(tree) for version, tree in self.trees.items()}

    def present(self) -> dict[str, Any]:
        """Build what is missing; return the result."""
        current = read(self.directory)
        todo, unused = plan(current, self.wanted)
        outdated = [] if self.asked["prepare"] else self.outdated()
        if not self.check_mode:
            self.build(todo)
            if not self.asked["prepare"]:
                for version in todo:
                    put_in_place(self.directory, version)
        return {
            "changed": bool(todo or outdated) and not self.asked["prepare"],
            "built": todo,
            "packages": {},
            "outdated": outdated,
            "unused": unused,
            "diff": {"before": lines(current, todo), "after": lines(self.wanted, todo)},
        }

    def outdated(self) -> list[str]:
        """Return the versions whose masters still run in the tree before: a run ended between exchange and restart."""
        olds = {version: self.directory / f"{version}.old" for version in self.wanted}
        used = roots_in_use()
        return [version for version, old in olds.items() if old.exists() and identity(old) in used]

    def latest(self) -> dict[str, Any]:
        """Build anew what its release has newer; return the result."""
        current = read(self.directory)
        todo, unused = plan(current, self.wanted)
        packages: dict[str, list[str]] = {version: [] for version in todo}
        for version in set(self.wanted) - set(todo):
            found = self.newer(version)
            if found or self.asked["force"]:
                packages[version] = found
        if not self.check_mode:
            packages = self.renew(packages)
        return {"changed": bool(packages), "built": sorted(packages), "packages": packages, "unused": unused}

    def newer(self, version: str) -> list[str]:
        """Return what the release of a tree has newer."""
        try:
            return newer(self.directory / version)
        except TreesError as problem:
            raise TreesError(
                f"The release of PHP {version} ({self.trees[version]['suite']}) cannot be asked for its updates: "
                f"{problem} - nothing was touched. Is the package mirror reachable?"
            ) from problem

    def renew(self, versions: Iterable[str]) -> dict[str, list[str]]:
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
            if changes or self.asked["force"]:
                put_in_place(self.directory, version)
                packages[version] = changes
            else:
                clear(new)
        return packages

    def previous(self) -> dict[str, Any]:
        """Let each tree and the one it replaced change places; return the result."""
        packages = {}
        for version in self.wanted:
            root = self.directory / version
            old = Path(f"{root}.old")
            if stamp(old) is None or stamp(root) is None:
                raise TreesError(
                    f"No earlier tree of PHP {version} is kept on this host: there is one once it was updated. "
                    "Nothing was touched."
                )
            packages[version] = thinking.package_changes(installed(root), installed(old))
        if not self.check_mode:
            for version in packages:
                exchange(self.directory / version, self.directory / f"{version}.old")
        return {"changed": bool(packages), "built": sorted(packages), "packages": packages, "unused": []}

    def build(self, versions: Iterable[str]) -> None:
        """Build trees beside those in use; what can be built is put in place even where another cannot."""
        failures = build_all(self.directory, [self.trees[version] for version in versions])
        if not failures:
            return
        built = set(versions) - set(failures)
        if not self.asked["prepare"]:
            for version in built:
                put_in_place(self.directory, version)
        failed = [f"PHP {version} ({self.trees[version]['suite']}): {why}" for version, why in failures.items()]
        raise TreesError(
            "Could not build " + "; ".join(failed) + " - sites on these versions stay as they were. "
            "Where the archive lacks a package, set `security: false` for the runtime or take another suite.",
            changed=bool(built),
        )


def lines(descriptions: Mapping[str, Any], versions: Iterable[str]) -> str:
    """Return the descriptions as text for a diff."""
    return "".join(f"{v}: {json.dumps(descriptions[v])}\n" for v in versions if descriptions.get(v))
