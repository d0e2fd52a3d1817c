# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the data of `infini bench backup`, and changes a hundredth of it; runs on the host, without Ansible.

Everything comes from one seed, so that two hosts have the same bytes. Text is made of words as unequally frequent as
those of a language, and compresses like one; attachments and pictures do not compress. Messages and pictures are each
of their own, while the code of the sites is the same in all of them, as it is at a host of many sites.
"""

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from base64 import encodebytes
from pathlib import Path

SEED = 1996
SHARES = {"mail": 0.7, "sites": 0.2, "databases": 0.1}
MAILBOXES, DATABASES = 92, 10
"""A tenth of Infini's mailboxes."""
WITH_ATTACHMENT, LETTER = 0.15, 7000
"""Share of messages with an attachment, and bytes of a usual letter."""
LARGEST = 400_000
"""An attachment fits one chunk of both tools: what they find twice would be the generator's doing."""
SYLLABLES = ["la", "ré", "so", "mi", "tan", "que", "vou", "il", "pre", "chan", "ti", "on", "eur", "des", "è", "bre"]
SQL = """
CREATE DATABASE {name};
CREATE TABLE {name}.wp_posts (id INT PRIMARY KEY, post_date DATETIME, post_title VARCHAR(200), post_content LONGTEXT,
  post_status VARCHAR(20), KEY (post_date)) ENGINE=InnoDB CHARSET utf8mb4;
CREATE TABLE {name}.spip_articles LIKE {name}.wp_posts;
ALTER TABLE {name}.spip_articles ENGINE=MyISAM;
"""
TABLES = ("wp_posts", "spip_articles")


class Words:
    """Slices of one long text, and of noise."""

    def __init__(self, generator):
        self.draw = generator
        known = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 4))) for _ in range(5000)]
        frequent = [1 / rank for rank in range(1, len(known) + 1)]
        words = generator.choices(known, frequent, k=500_000)
        lines = [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)]
        self.text = "\n".join(lines).encode()
        self.noise = encodebytes(generator.randbytes(24_000_000))

    def some(self, length):
        """Return a piece of text."""
        start = self.draw.randrange(len(self.text) - length)
        return self.text[start : start + length]

    def attachment(self, length):
        """Return something that does not compress, as mail carries it."""
        start = self.draw.randrange(len(self.noise) - length)
        return self.noise[start : start + length]


def message(words, number, mean):
    """Return a message; all of them have the mean length in common."""
    draw = words.draw
    who = f"membre{number % 997}@exemple{number % 89}.test"
    head = (
        f"Return-Path: <{who}>\nReceived: from mx{number % 7}.exemple.test by mail.infini.test; {number}\n"
        f"Message-ID: <{draw.getrandbits(64):x}@exemple.test>\nFrom: {who}\nTo: bureau@exemple.test\nSubject: "
    ).encode()
    letter = words.some(min(200_000, int(draw.lognormvariate(8.4, 0.9))))
    attached = b""
    if draw.random() < WITH_ATTACHMENT:
        length = draw.expovariate(WITH_ATTACHMENT / max(1, mean - LETTER))
        attached = b"\n--part\nContent-Transfer-Encoding: base64\n\n" + words.attachment(min(LARGEST, int(length)))
    return head + letter[:40].replace(b"\n", b" ") + b"\n\n" + letter + attached


def mail(top, words, messages, size):
    """Write maildirs: few of them hold most."""
    boxes = [top / f"mail/exemple{number % 30}.test/boite{number}" for number in range(MAILBOXES)]
    for box, folder in itertools.product(boxes, ("cur", "new", "tmp")):
        (box / folder).mkdir(parents=True)
    chosen = words.draw.choices(boxes, [1 / rank for rank in range(1, MAILBOXES + 1)], k=messages)
    for number, box in enumerate(chosen):
        (box / f"cur/{1_500_000_000 + number}.M{number}P1.web:2,S").write_bytes(message(words, number, size / messages))


def sites(top, words, size, code):
    """Write sites: half of the bytes is the code that all have, half are pictures of their own."""
    weight = sum(path.stat().st_size for path in code.rglob("*") if path.is_file() and not path.is_symlink())
    for number in range(max(1, int(size / 2 / weight))):
        site = top / f"sites/site{number}"
        shutil.copytree(code, site, symlinks=True)
        (site / "wp-config.php").write_text(f"<?php define('DB_NAME', 'bench_backup_{number}');\n")
        left = weight
        for picture in itertools.count():
            length = words.draw.randint(20_000, 400_000)
            path = site / f"uploads/{picture % 12:02}/{picture}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(words.draw.randbytes(length))
            left -= length
            if left < 0:
                break


def databases(words, size, scratch):
    """Fill databases with articles, half of them MyISAM."""
    rows = int(size / DATABASES / len(TABLES) / 2200)
    for number in range(DATABASES):
        name = f"bench_backup_{number}"
        lines = [
            f"{row}\t2024-01-{row % 28 + 1:02}\t{words.some(40).decode(errors='ignore').translate(NO_BREAKS)}\t"
            f"{words.some(words.draw.randint(200, 4000)).decode(errors='ignore').translate(NO_BREAKS)}\tpublish\n"
            for row in range(1, rows + 1)
        ]
        scratch.write_text("".join(lines))
        load = "".join(f"LOAD DATA LOCAL INFILE '{scratch}' INTO TABLE {name}.{table};" for table in TABLES)
        sql(SQL.format(name=name) + load)
    scratch.unlink()


NO_BREAKS = str.maketrans("\n\t", "  ")


def sql(text):
    """Give statements to the server."""
    words = ["mariadb", "--local-infile=1", "--default-character-set=utf8mb4"]
    subprocess.run(words, input=text.encode(), check=True)


def make(top, gigabytes, messages, code):
    """Make everything."""
    words = Words(random.Random(SEED))  # noqa: S311  the same bytes each time
    size = gigabytes * 10**9
    mail(top, words, messages, size * SHARES["mail"])
    sites(top, words, size * SHARES["sites"], code)
    databases(words, size * SHARES["databases"], top / "rows")


def change(top, number):
    """Change a hundredth: half of that by new messages, the rest by flags and by deletion; then sites and databases."""
    words = Words(random.Random(SEED + number))  # noqa: S311  likewise
    kept = sorted((top / "mail").rglob("cur/*"))
    mean = sum(path.stat().st_size for path in kept[::100]) / len(kept[::100])
    for turn, path in enumerate(kept[number::100]):
        if turn % 4 == 0:
            path.unlink()
        elif turn % 4 == 1:
            path.rename(path.with_name(path.name.replace(":2,S", ":2,RS")))
        else:
            new = path.parent.with_name("new") / f"{int(time.time())}.M{number}P{turn}.web"
            new.write_bytes(message(words, turn, mean))
    for path in sorted((top / "sites").rglob("*.php"))[number::100]:
        path.write_bytes(path.read_bytes() + f"\n// {number}\n".encode())
    for path in sorted((top / "sites").rglob("*.jpg"))[number::100]:
        path.with_suffix(f".{number}.jpg").write_bytes(words.draw.randbytes(path.stat().st_size))
    for database, table in itertools.product(range(DATABASES), TABLES):
        longer = f"post_content = CONCAT(post_content, ' {number}')"
        sql(f"UPDATE bench_backup_{database}.{table} SET {longer} WHERE id % 100 = {number};")  # noqa: S608  our own


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("top", type=Path)
    parser.add_argument("--change", type=int)
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--messages", type=int)
    parser.add_argument("--code", type=Path)
    asked = parser.parse_args()
    if asked.change is None:
        make(asked.top, asked.gigabytes, asked.messages, asked.code)
    else:
        change(asked.top, asked.change)
    os.sync()


if __name__ == "__main__":
    sys.exit(main())
