# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spoil an extracted archive in one known way: sent to a machine of a drill as it is, so it imports nothing of ours.

    python3 - FAULT TREE SERVICE

TREE is an extracted archive; what is the service's own of it (manifest, dumps) is under var/lib/infini-backup/SERVICE.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path


def largest_file(tree: Path) -> Path:
    """Return a file of a member that is worth spoiling."""
    files = [path for path in (tree / "srv").rglob("*") if path.is_file() and not path.is_symlink()]
    return max(files, key=lambda path: path.stat().st_size)


def largest_dump(own: Path) -> Path:
    """Return the dump that holds most."""
    return max((own / "dumps").glob("*.sql"), key=lambda path: path.stat().st_size)


def attributes(path: Path) -> dict[str, bytes]:
    """Return what a file has beside its mode: access lists and the like."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def flipped_bit(tree: Path, _own: Path) -> None:
    """Change one bit in the middle of a file, and nothing else of it."""
    path = largest_file(tree)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def lost_owner(tree: Path, _own: Path) -> None:
    """Give a file to root, as a copy by root does."""
    os.chown(largest_file(tree), 0, 0)


def another_acl(tree: Path, _own: Path) -> None:
    """Change the access list of a file: it goes where there is one, and lets a stranger in where there is none."""
    path, name = largest_file(tree), "system.posix_acl_access"
    if name in attributes(path):
        os.removexattr(path, name)
    else:  # as the kernel keeps it: owner, user 65000, group, mask, others; each with what it may do
        entries = [(0x01, 6, -1), (0x02, 6, 65000), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
        packed = b"".join(struct.pack("<HHi", tag, permissions, who) for tag, permissions, who in entries)
        os.setxattr(path, name, struct.pack("<I", 2) + packed)


def empty_folder(tree: Path, _own: Path) -> None:
    """Empty a folder that had files, as a maildir is after a failed copy."""
    folder = largest_file(tree).parent
    stamp = folder.stat()
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.utime(folder, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def stale_canary(_tree: Path, own: Path) -> None:
    """Put the canary back to a day long ago: a backup that copies the same old tree again and again."""
    header, canary = own / "manifest.json", own / "canary"
    told = json.loads(header.read_text())
    told["canary"]["made"] = 1577836800
    header.write_text(json.dumps(told))
    canary.write_text(json.dumps(told["canary"]))


def lying_manifest(_tree: Path, own: Path) -> None:
    """Let the list of files name one that was never there, and its own sum agree."""
    header, files = own / "manifest.json", own / "manifest.jsonl"
    lines = files.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if json.loads(line)[1] == "file")
    row = json.loads(lines[last])
    row[0] += ".never-there"
    lines.insert(last + 1, json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    files.write_text("".join(lines))
    told = json.loads(header.read_text())
    told["entries"] = {"lines": len(lines), "sha256": hashlib.sha256(files.read_bytes()).hexdigest()}
    header.write_text(json.dumps(told))


def missing_database(_tree: Path, own: Path) -> None:
    """Lose a dump."""
    largest_dump(own).unlink()


def missing_table(_tree: Path, own: Path) -> None:
    """Lose one table from a dump."""
    dump = largest_dump(own)
    text = dump.read_bytes()
    name = re.search(rb"\nCREATE TABLE `([^`]+)`", text)
    assert name  # noqa: S101  a dump of a site has tables
    head = b"\n--\n-- Table structure for table `"
    parts = re.split(b"(?=" + head + b")", text)
    dump.write_bytes(b"".join(part for part in parts if not part.startswith(head + name[1] + b"`")))


def empty_dump(_tree: Path, own: Path) -> None:
    """Keep the tables of a dump and lose their rows: valid SQL that restores nothing."""
    dump = largest_dump(own)
    dump.write_bytes(re.sub(rb"(?ms)^INSERT INTO .*?\);\n", b"", dump.read_bytes()))


FAULTS: dict[str, Callable[[Path, Path], None]] = {
    function.__name__: function
    for function in (
        *(flipped_bit, lost_owner, another_acl, empty_folder, stale_canary, lying_manifest),
        *(missing_database, missing_table, empty_dump),
    )
}

if __name__ == "__main__":
    fault, tree, service = sys.argv[1:]
    FAULTS[fault](Path(tree), Path(tree) / "var/lib/infini-backup" / service)
