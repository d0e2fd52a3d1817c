# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CMS as a self-contained folder, made from Debian packages.

Debian's packages share libraries through links into /usr/share; a member's copy stands alone under its document root.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .cms import CmsError, Kind

LIBRARIES = "/usr/share/php"

Run = Callable[[Sequence[str], Path], str]
"""Runs a command in a folder and returns what it printed; raises CmsError when it fails."""

_CODENAME = re.compile(r'^VERSION_CODENAME="?(\w+)"?$', re.MULTILINE)
_FIELD = re.compile(r"^([A-Za-z-]+): (.*)$", re.MULTILINE)
_ABSOLUTE = re.compile(r"'(/usr/share/\w+/)")


def codename(root: Path) -> str:
    """Return the Debian release that lives under this root, or nothing."""
    try:
        found = _CODENAME.search((root / "etc/os-release").read_text())
    except OSError:
        return ""
    return found.group(1) if found else ""


def find_root(release: str, roots: Sequence[Path]) -> Path:
    """Return the first root that holds this Debian release."""
    for root in roots:
        if codename(root) == release:
            return root
    raise CmsError(f"no Debian {release} on this host to take packages from: declare a PHP tree of {release}")


def apt_options(root: Path, state: Path) -> list[str]:
    """Return options that let this host's apt read the sources of a tree and keep its own lists elsewhere."""
    if root == Path("/"):
        return ["-o", "APT::Sandbox::User=root"]
    settings = {
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::Etc": f"{root}/etc/apt",
        "Dir::State": str(state),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": f"{state}/cache",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def parse_stanzas(text: str) -> list[dict[str, str]]:
    """Return the fields of each package in apt's answer; folded lines are left out."""
    return [dict(_FIELD.findall(stanza)) for stanza in text.split("\n\n") if stanza.strip()]


def names_in(field: str) -> list[str]:
    """Return the package names of a dependency field, the first of each choice, without versions."""
    first = [choice.split("|")[0].split() for choice in field.split(",")]
    return [words[0].split(":")[0] for words in first if words]


def closure(package: str, show: Callable[[Sequence[str]], str]) -> list[str]:
    """Return the package and what it needs, as far as that is the same on every architecture: scripts, pages, fonts.

    Programs stay behind, and what only they need: the site runs in a PHP that is there already.
    """
    chosen: list[str] = []
    asked: set[str] = set()
    wave = [package]
    while wave:
        asked.update(wave)
        needed: list[str] = []
        for stanza in parse_stanzas(show(wave)):
            name = stanza.get("Package", "")
            if stanza.get("Architecture") != "all" or name in chosen:
                continue
            chosen.append(name)
            needed += names_in(stanza.get("Depends", ""))
            if name == package:  # its themes and languages are only recommended
                extras = names_in(stanza.get("Recommends", ""))
                needed += [extra for extra in extras if extra.startswith(f"{package}-")]
        wave = sorted(set(needed) - asked)
    return chosen


def resolve(world: Path, path: str) -> str:
    """Return where an absolute path leads when this world is the root of all links."""
    done, todo, hops = "/", [part for part in path.split("/") if part], 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = posixpath.dirname(done)
            continue
        here = world / posixpath.join(done, part).lstrip("/")
        if not here.is_symlink():
            done = posixpath.join(done, part)
            continue
        hops += 1
        if hops > 40:
            raise CmsError(f"the link {path} of a package leads round in circles")
        target = str(here.readlink())
        done = "/" if target.startswith("/") else done
        todo = [piece for piece in target.split("/") if piece not in ("", ".")] + todo
    return done


def walk(world: Path, home: str, kind: Kind, under: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the relative path and the real file of everything a member's copy holds."""
    real = world / resolve(world, posixpath.join(home, under)).lstrip("/")
    if not real.exists():  # a file that the package makes only when it is configured
        real = Path(resolve(world, posixpath.join(home, under)))
    if real.is_dir():
        for entry in sorted(real.iterdir()):
            path = posixpath.join(under, entry.name)
            if kind.wants(path):
                yield from walk(world, home, kind, path)
    elif real.is_file():
        yield under, real
    else:
        raise CmsError(f"the package {kind.package} links {under} to {real}, which none of its packages holds")


def relocate(text: str, path: str, kind: Kind) -> str:
    """Return a PHP file whose absolute paths into Debian's folders lead to the same files of the copy instead."""
    up = posixpath.relpath(".", posixpath.dirname(path) or ".")
    places = {f"{LIBRARIES}/": posixpath.join(up, kind.libraries), f"{kind.home}/": up}

    def moved(found: re.Match[str]) -> str:
        place = places.get(found.group(1))
        return f"__DIR__ . '/{place}/" if place else found.group(0)

    return _ABSOLUTE.sub(moved, text)


def compose(world: Path, kind: Kind, picture: Path) -> None:
    """Make the self-contained folder from unpacked packages."""
    files = dict(walk(world, kind.home, kind))
    if kind.libraries and (world / LIBRARIES.lstrip("/")).is_dir():
        files.update({posixpath.join(kind.libraries, path): real for path, real in walk(world, LIBRARIES, kind)})
    for path, real in files.items():
        copy = picture / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".php"):
            # Latin-1 gives back every byte as it was, whatever the file is written in.
            copy.write_bytes(relocate(real.read_bytes().decode("latin-1"), path, kind).encode("latin-1"))
        else:
            shutil.copyfile(real, copy)
    for folder in kind.folders:
        (picture / folder).mkdir(parents=True, exist_ok=True)
    for path, text in kind.own:
        (picture / path).write_text(text, "utf-8")


def make(kind: Kind, root: Path, picture: Path, run: Run) -> None:
    """Fetch the packages of a CMS from the release under this root and make its picture, all or nothing."""
    picture.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with TemporaryDirectory(dir=picture.parent) as scratch:
        folder = Path(scratch)
        options = apt_options(root, folder)
        for needed in ("lists/partial", "cache/archives/partial", "debs", "world", "picture"):
            (folder / needed).mkdir(parents=True)
        if root != Path("/"):
            run(["apt-get", *options, "-qq", "update"], folder)
        show = ["apt-cache", *options, "show", "--no-all-versions"]
        packages = closure(kind.package, lambda names: run([*show, *names], folder))
        if not packages:
            raise CmsError(f"apt knows no {kind.package} here: run `apt-get update` there, or choose another release")
        run(["apt-get", *options, "-qq", "download", *packages], folder / "debs")
        for package in sorted((folder / "debs").glob("*.deb")):
            run(["dpkg-deb", "--extract", str(package), str(folder / "world")], folder)
        compose(folder / "world", kind, folder / "picture")
        (folder / "picture").chmod(0o755)
        (folder / "picture").rename(picture)
