# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that stand in for a repository that tests cannot reach, and a signed apt repository of them.

The packages are the trees `standins/*/package*`; what they promise is written in the CONTRACT.md beside them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infini import ROOT
from infini.errors import InfiniError, RefusedError

SOURCES = ROOT / "standins"
SUITE = "bookworm"
ARCHITECTURES = ("all", "amd64")
TOOLS = {"dpkg-deb": "dpkg", "gpg": "gnupg"}
"""Command and Debian package of what `build` needs on the control node."""
EPOCH = "1767225600"
"""No file in a package is younger: the same sources make the same package."""
MODES = {"etc/sudoers.d": 0o440}
SIGNER = "infini-infra stand-ins, key of one build <standins@infini.test>"


def build(into: Path, sources: Path = SOURCES) -> Path:
    """Write the repository of all stand-ins into a directory, unless it is there already and no source changed since.

    `deb [signed-by=/…/key.asc] file:<into> bookworm main` is its line for apt; the key is `key.txt`.
    Each build signs with a key of its own, whose private half is gone when the build ends.
    """
    trees = sorted(path.parent.parent for path in sources.glob("*/package*/DEBIAN/control"))
    wanted = stamp(trees)
    written = into / "stamp"
    if written.is_file() and written.read_text() == wanted:
        return into
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise RefusedError(f"{tool} is not on this machine: apt-get install {package}")
    into.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # a bench keeps its keys beside it
    written.unlink(missing_ok=True)
    for old in ("pool", "dists"):
        shutil.rmtree(into / old, ignore_errors=True)  # the first time there are none
    pool = into / "pool"
    pool.mkdir(parents=True)
    packages = "\n".join(_entry(_package(tree, pool), into) for tree in trees)
    release = into / "dists" / SUITE
    for architecture in ARCHITECTURES:
        index = release / "main" / f"binary-{architecture}" / "Packages"
        index.parent.mkdir(parents=True)
        index.write_text(packages)
    (release / "Release").write_text(_release(release))
    _sign(release / "Release", release / "InRelease", into / "key.txt")
    written.write_text(wanted)
    return into


def stamp(trees: list[Path]) -> str:
    """Return a digest of everything that a repository of these trees depends on."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            if path.is_symlink():
                what = os.fsencode(path.readlink())
            elif path.is_file():
                what = hashlib.sha256(path.read_bytes()).digest() + bytes([_runs(path)])
            else:
                continue
            digest.update(f"{tree.name}/{path.relative_to(tree)}\0".encode() + what)
    return digest.hexdigest() + "\n"


def _package(tree: Path, pool: Path) -> Path:
    """Build one package; its modes do not depend on the umask of whoever cloned the repository."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "tree"
        shutil.copytree(tree, copy, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(_mode(path, copy))
        _run("dpkg-deb", "--root-owner-group", "--build", str(copy), str(pool), SOURCE_DATE_EPOCH=EPOCH)
    control = _fields((tree / "DEBIAN/control").read_text())
    return pool / f"{control['Package']}_{control['Version']}_{control['Architecture']}.deb"


def _mode(path: Path, root: Path) -> int:
    if path.is_dir() or _runs(path):
        return 0o755
    return MODES.get(str(path.relative_to(root).parent), 0o644)


def _runs(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _fields(control: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in control.splitlines() if line[:1].strip() and ": " in line)


def _entry(package: Path, into: Path) -> str:
    """Return the paragraph of a package in the index."""
    content = package.read_bytes()
    lines = [
        _run("dpkg-deb", "--field", str(package)).rstrip("\n"),
        f"Filename: {package.relative_to(into)}",
        f"Size: {len(content)}",
        f"SHA256: {hashlib.sha256(content).hexdigest()}",
    ]
    return "\n".join(lines) + "\n"


def _release(release: Path) -> str:
    lines = [
        "Origin: infini-infra",
        "Label: stand-ins",
        f"Suite: {SUITE}",
        f"Codename: {SUITE}",
        f"Date: {datetime.now(UTC):%a, %d %b %Y %H:%M:%S} UTC",
        f"Architectures: {' '.join(ARCHITECTURES)}",
        "Components: main",
        "SHA256:",
    ]
    for index in sorted(release.glob("main/*/Packages")):
        content = index.read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {index.relative_to(release)}")
    return "\n".join(lines) + "\n"


def _sign(release: Path, signed: Path, key: Path) -> None:
    """Sign with a key made for this, and leave nothing of it but its public half."""
    with _gnupg() as home:
        _run(
            "gpg", "--batch", "--passphrase", "", "--quick-gen-key", SIGNER, "ed25519", "sign", "never", GNUPGHOME=home
        )
        _run("gpg", "--batch", "--yes", "--clearsign", "--output", str(signed), str(release), GNUPGHOME=home)
        key.write_text(_run("gpg", "--batch", "--armor", "--export", GNUPGHOME=home))


@contextmanager
def _gnupg() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as home:
        try:
            yield home
        finally:
            _run("gpgconf", "--kill", "all", GNUPGHOME=home)


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfiniError(
            f"{command[0]} failed while the stand-ins were built: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout
