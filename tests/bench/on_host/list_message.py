# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run on the host of the lists: one message to a list, and how long it takes until its last copy lies in a mailbox.

python3 - SENDER LIST FOLDER MAILBOXES SECONDS  prints a JSON object. Copies are the files of the mailboxes under
FOLDER; memory is what the processes of each account really take (what they share is parted among them).
"""

import json
import os
import pwd
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TEXT = "Ce bulletin raconte les sorties de la saison et celles qui viennent.\n" * 220
"""About 15 kB: a newsletter without pictures."""
POLL = 2.0


def memory():
    """Return the KiB that the processes of each account take."""
    taken = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
            user = pwd.getpwuid(folder.stat().st_uid).pw_name
        except (OSError, KeyError):  # it has ended, or is a thread of the kernel
            continue
        taken[user] = taken.get(user, 0) + sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return taken


def copies(folder, since):
    """Return when each mailbox got its copy, and how many got more than one."""
    found, twice = [], 0
    for path in Path(folder).glob("*"):
        times = []
        for part in ("new", "cur"):
            with suppress(FileNotFoundError), os.scandir(path / "Maildir" / part) as entries:
                times += [entry.stat().st_mtime for entry in entries]
        times = [moment for moment in times if moment >= since]
        found += times[:1]
        twice += len(times) > 1
    return found, twice


def main(sender, address, folder, mailboxes, seconds):
    """Send, watch, tell."""
    started, peaks, found, twice = time.time(), {}, [], 0
    head = f"From: {sender}\nTo: {address}\nSubject: Bulletin {started:.0f}\nMessage-ID: <{started}@bench.test>\n"
    text = f"{head}MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{TEXT}\n"
    subprocess.run(["/usr/sbin/sendmail", "-i", "-f", sender, address], input=text, text=True, check=True)
    rest = memory()
    while len(found) < int(mailboxes) and time.time() - started < float(seconds):
        time.sleep(POLL)
        for user, taken in memory().items():
            peaks[user] = max(peaks.get(user, 0), taken)
        found, twice = copies(folder, started - 1)
    first, last = min(found, default=started), max(found, default=started)
    answer = {
        "mailboxes reached": len(found),
        "reached twice": twice,
        "seconds until the first": round(first - started, 1),
        "minutes until the last": round((last - started) / 60, 2),
        "messages a second": round(len(found) / max(last - started, 1), 1),
    }
    for user in ("sympa", "postfix", "vmail", "dovecot", "_rspamd", "root"):
        answer[f"MiB at most, {user}"] = peaks.get(user, 0) // 1024
    answer["MiB more than before, all"] = (sum(peaks.values()) - sum(rest.values())) // 1024
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
