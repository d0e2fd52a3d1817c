# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our way does around borg, for `infini bench backup`: `prepare`, `load` and `compare`, on the host.

Prints what it found as JSON. The first argument is the folder that goes into the archive beside the data.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from hosting import dumps, manifest

NAMES = "bench_backup_*"


def prepare(folder, data):
    """Dump the databases while the manifest is written, as a backup does; return their shares of the time."""
    (folder / "dumps").mkdir(parents=True, exist_ok=True)
    taken = {}

    def dumped():
        server, began = dumps.Server(), time.monotonic()
        databases = {name: server.dump(name, str(folder / "dumps")) for name in server.names([NAMES])}
        taken["dumps (s)"] = round(time.monotonic() - began, 1)
        return {"databases": databases}

    before = time.process_time()
    header = manifest.make(str(folder), "bench", [data], cache=f"{folder}.cache", meanwhile=dumped)
    counts = {key: header[key] for key in ("hashed", "reused", "sampled")}
    files = sum(source["files"] for source in header["sources"].values())
    size = (folder / manifest.ENTRIES).stat().st_size
    return {
        **taken,
        "dumps and manifest (s)": header["seconds"],
        "of processor, without the server (s)": round(time.process_time() - before, 1),
        "manifest (MB)": round(size / 1e6, 1),
        "files": files,
        **counts,
    }


def load(folder, to):
    """Load every dump that was restored beside the living database."""
    restored = Path(f"{to}{folder}")
    header = manifest.read_header(str(restored))
    for name, about in header["databases"].items():
        dumps.Server().load(str(restored / "dumps" / about["file"]), about, f"restored_{name}", replace=True)
    return {}


def compare(folder, to):
    """Compare everything that was restored with its manifest."""
    restored, began = f"{to}{folder}", time.monotonic()
    answer = manifest.compare(restored, to)
    middle = time.monotonic()
    for name, about in manifest.read_header(restored)["databases"].items():
        answer["findings"] += dumps.compare(name, about, dumps.Server().look(f"restored_{name}"))
    return {
        **answer,
        "files (s)": round(middle - began, 1),
        "databases (s)": round(time.monotonic() - middle, 1),
    }


if __name__ == "__main__":
    step = {"prepare": prepare, "load": load, "compare": compare}[sys.argv[1]]
    sys.stdout.write(json.dumps(step(Path(sys.argv[2]), sys.argv[3])))
