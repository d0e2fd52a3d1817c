# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini bench lists`: Sympa of Infini's size from data, against its own commands and against the bare database.

From nothing, again, and with one list and one subscriber changed; each is a whole run of the play, and the tasks of it
are told apart. Beside it: Sympa's own `create` and `add`, one after the other, on few, and what that would be for all;
the same rows by LOAD DATA into empty tables. Sympa's own dump, review, rebuilt table and pages are compared with the
data, list by list. Then one message to a list of 10,000 mailboxes of the host, until its last copy lies there. In the
end the subscribers once more from nothing, ten times as many: what grows faster than they, or breaks, is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("INFINI_BENCH", "bench")  # before an inventory is read

from infini import ROOT, staging
from infini.apply import apply as infini_apply
from infini.apply import playbook_path
from infini.hosts import Inventory
from infini.plain import plain
from infini.runner import RunResult, play

WANTED = {
    "no change, whole run": 15.0,
    "one list, whole run": 5.0,
    "lists from nothing": 360.0,
    "subscribers from nothing / raw load": 5.0,
    "seconds a subscription, grown / as they are": 1.25,
}
"""At most: seconds on the host unless it says the whole run, which is the play's, and ratios.

A quarter more a subscription is what we call linear. Nobody said how long a message to many may take.
"""
TASKS = {"robots": "Own the robots", "lists": "Own the lists", "subscribers": "Own the subscribers"}
DOMAIN = "listes.bench.test"
CLI_ROBOT = "cli.bench.test"
MANY = "grande"
READERS = "lecteurs.bench.test"
PATIENCE = 3600
SLOWEST = 5
"""How many tasks of a run are told with the seconds that they took, waiting for the host included."""
ON_HOST = ROOT / "tests/bench/on_host/list_message.py"
SYMPA = "runuser -u sympa -- sympa"
THERE = """SELECT COUNT(*), COUNT(DISTINCT user_subscriber) FROM subscriber_table;
SELECT COUNT(*), COUNT(DISTINCT robot_list) FROM list_table;"""
XML = """<?xml version="1.0"?><list><listname>cli{number}</listname><type>discussion_list</type><subject>x</subject>
<description/><status>open</status><owner multiple="1"><email>owner@ailleurs.example</email></owner>
<topics>other</topics></list>"""


class Host:
    """The host with Sympa."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.name = inventory.hosts("list_servers")[0]

    def run(self, command: str, text: str = "") -> str:
        """Run a command as root and return what it says."""
        line = [*self.inventory.connection(self.name).ssh("-o", "BatchMode=yes"), command]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout.strip()

    def sql(self, statements: str, database: str = "sympa") -> str:
        """Ask the database."""
        return self.run(f"mariadb --batch --skip-column-names {database}", statements)

    def timed(self, command: str, text: str = "") -> float:
        """Return how long a command takes on the host, without the way there."""
        timing = f"start=$(date +%s%N); {command} > /dev/null; echo $(($(date +%s%N) - start))"
        return int(self.run(timing, text).splitlines()[-1]) / 1e9


def robots(count: int) -> list[dict[str, Any]]:
    """Return fictitious robots."""
    return [
        {"name": f"r{number:03}.{DOMAIN}", "title": f"Robot {number}", "listmasters": [f"tech@{DOMAIN}"]}
        for number in range(count)
    ]


def lists(count: int, on: int) -> list[dict[str, Any]]:
    """Return fictitious lists on that many robots, of all kinds."""
    return [
        {
            "name": f"liste{number // on:03}",
            "robot": f"r{number % on:03}.{DOMAIN}",
            "kind": ("discussion", "newsletter", "closed")[number % 3],
            "subject": f"Liste fictive n° {number}",
            "owners": [{"email": f"owner{number % 400}@ailleurs.example", "name": f"Propriétaire {number % 400}"}],
            "moderators": [{"email": f"moderator{number % 90}@ailleurs.example"}] if number % 4 == 0 else [],
            "managed": True,
        }
        for number in range(count)
    ]


def sizes(count: int, subscriptions: int) -> list[int]:
    """Return how many subscribers each list has: a few have many, as it is in life."""
    weights = [1 / (number + 3) ** 0.7 for number in range(count)]
    found = [int(subscriptions * weight / sum(weights)) for weight in weights]
    found[0] += subscriptions - sum(found)
    return found


def lines(wanted: list[dict[str, Any]], subscriptions: int, people: int) -> Iterator[str]:
    """Return the file of subscribers: that many subscriptions of that many people, in no order of names."""
    yield "list\temail\tname\treception\tvisibility\tdate\n"
    number = 0
    for entry, size in zip(wanted, sizes(len(wanted), subscriptions), strict=True):
        for _ in range(size):
            person = number % people
            digest = hashlib.md5(str(person).encode()).hexdigest()  # noqa: S324  only to scatter the names
            cells = (
                f"{entry['name']}@{entry['robot']}",
                f"{digest[:12]}@m{person % 997}.example",
                f"Personne {person}",
                "mail" if number % 17 else "digest",
                "noconceal" if number % 23 else "conceal",
                str(1400000000 + number),
            )
            yield "\t".join(cells) + "\n"
            number += 1


def apply(host: Host, wanted: dict[str, Any]) -> tuple[RunResult, dict[str, float]]:
    """Run the play; return what it did, and the seconds of the tasks that count."""
    done = play(playbook_path("lists"), str(host.inventory.path), wanted)
    if not done.ok:
        raise RuntimeError(done.sentence())
    results = {
        name: entry["result"]
        for entry in done.results
        for name, task in TASKS.items()
        if task in entry["task"] and "seconds" in entry["result"]
    }
    took = {name: result["seconds"] for name, result in results.items()}
    memory = {f"MiB, {name}": result["mib"] for name, result in results.items() if "mib" in result}
    slow = sorted(done.results, key=lambda entry: -float(entry["seconds"]))[:SLOWEST]
    tasks = {f"task: {entry['task']}": round(float(entry["seconds"]), 2) for entry in slow}
    return done, {"play": round(done.seconds, 1), **took, **memory, **tasks}


def as_a_tech_does(host: Host, wanted: dict[str, Any]) -> float:
    """Change one list more by `infini apply lists`, which begins with the preflight; return the seconds of all."""
    wanted["sympa_lists"][2]["subject"] = "Encore un autre sujet"
    done = infini_apply("lists", staging.INVENTORY, limit=host.name, variables=wanted, quiet=True)
    if not done.ok:
        raise RuntimeError(done.sentence())
    return round(done.seconds, 1)


def close_what_is_declared(host: Host) -> None:
    """Take the inventory's own robots and lists away, which closing would otherwise count as ours, and be refused."""
    declared = host.inventory.get(host.name, "sympa_lists")
    addresses = [f"{one['name']}@{one['robot']}" for one in declared]
    apply(host, {"sympa_robots": [], "sympa_lists": [], "sympa_subscribers": "", "sympa_confirm_closings": addresses})


@contextmanager
def subscribers_file(wanted: list[dict[str, Any]], subscriptions: int, people: int) -> Iterator[Path]:
    """Write the file of subscribers where the play takes it from."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "subscribers.tsv")
        with path.open("w") as stream:
            stream.writelines(lines(wanted, subscriptions, people))
        yield path


def by_its_own_commands(host: Host, some: int, counts: dict[str, int]) -> dict[str, Any]:
    """Make lists and subscribers by Sympa's own commands; return what that would take for all."""
    host.run(
        f"install -d -o sympa -g sympa /etc/sympa/{CLI_ROBOT} /var/lib/sympa/list_data/{CLI_ROBOT} && "
        f"printf 'title x\\nlistmaster tech@{DOMAIN}\\n' > /etc/sympa/{CLI_ROBOT}/robot.conf"
    )
    create = "".join(
        f"cat > /run/cli.xml <<'EOF'\n{XML.format(number=number)}\nEOF\n"
        f"{SYMPA} create --input_file=/run/cli.xml {CLI_ROBOT} || exit 1\n"
        for number in range(some)
    )
    started = time.monotonic()
    host.run("sh -s", create)
    a_list = (time.monotonic() - started) / some
    people = "".join(f"somebody{number}@ailleurs.example\n" for number in range(some))
    started = time.monotonic()
    host.run(f"{SYMPA} add --quiet cli0@{CLI_ROBOT}", people)
    a_subscriber = (time.monotonic() - started) / some
    host.run(
        f"for number in $(seq 0 {some - 1}); do {SYMPA} close --mode=purge cli$number@{CLI_ROBOT} || exit 1; done; "
        f"rm -r /etc/sympa/{CLI_ROBOT} /var/lib/sympa/list_data/{CLI_ROBOT}"
    )
    return {
        "lists and subscribers tried": some,
        "seconds a list": round(a_list, 2),
        "seconds a subscriber": round(a_subscriber, 3),
        "extrapolated minutes, lists": round(a_list * counts["lists"] / 60, 1),
        "extrapolated hours, subscribers": round(a_subscriber * counts["subscriptions"] / 3600, 1),
    }


def raw_load(host: Host) -> float:
    """Load the same rows into empty tables as fast as the server does it; return the seconds."""
    rows = "/var/lib/mysql/bench-rows"
    tables = ("subscriber_table", "user_table")
    host.run(f"rm -rf {rows} && install -d -o mysql -g mysql -m 0700 {rows}")
    host.sql("".join(f"SELECT * FROM {table} INTO OUTFILE '{rows}/{table}';" for table in tables))  # noqa: S608  our own names
    host.sql("".join(f"CREATE TABLE bench_{table} LIKE {table};" for table in tables))
    load = "".join(f"LOAD DATA INFILE '{rows}/{table}' INTO TABLE bench_{table};" for table in tables)
    seconds = host.timed(f'mariadb sympa --execute "{load}"')
    host.sql("".join(f"DROP TABLE bench_{table};" for table in tables))
    host.run(f"rm -r {rows}")
    return seconds


def disagreements(host: Host, wanted: list[dict[str, Any]], path: Path) -> list[str]:
    """Compare Sympa's own dump, review, table and pages with the data; return what differs."""
    them: dict[str, set[str]] = {f"{entry['name']}@{entry['robot']}": set() for entry in wanted}
    hidden = set()
    for line in path.read_text().splitlines()[1:]:
        address, email, _, _, visibility, _ = line.split("\t")
        them[address].add(email)
        hidden |= {(address, email)} if visibility == "conceal" else set()
    wrong = []
    host.run(f"{SYMPA} dump --roles=member,owner,editor '*'")
    dumped: dict[str, set[str]] = {}
    for line in host.run("cd /var/lib/sympa/list_data && grep -r --include=member.dump '^email ' .").splitlines():
        folder, _, email = line.partition(":email ")
        _, robot, name, _ = folder.split("/")
        dumped.setdefault(f"{name}@{robot}", set()).add(email)
    wrong += [f"dump of {address}" for address, those in them.items() if dumped.get(address, set()) != those]
    for address in list(them)[:: max(1, len(them) // 3)]:
        said = set(re.findall(r"\S+@\S+\.example", host.run(f"{SYMPA} review {address}")))
        shown = {email for email in them[address] if (address, email) not in hidden}
        wrong += [f"review of {address}"] if said != shown else []
    table = "SELECT * FROM list_table ORDER BY robot_list, name_list"
    ours = host.sql(table)
    host.run(f"{SYMPA} sync_list_db")
    wrong += ["list_table is not what Sympa makes of its files"] if host.sql(table) != ours else []
    wrong += _pages(host, wanted)
    return wrong


def page(host: Host, robot: str, path: str) -> str:
    """Return a page of a robot, as a visitor without account sees it."""
    variables = (
        f"REQUEST_METHOD=GET SCRIPT_NAME=/sympa PATH_INFO={path} REQUEST_URI=/sympa{path} SERVER_NAME={robot} "
        f"HTTP_HOST={robot} SERVER_PORT=443 HTTPS=on REMOTE_ADDR=192.0.2.1 SERVER_PROTOCOL=HTTP/1.1 QUERY_STRING="
    )
    return host.run(f"runuser -u sympa -- env {variables} /usr/lib/cgi-bin/sympa/wwsympa.fcgi < /dev/null")


def _pages(host: Host, wanted: list[dict[str, Any]]) -> list[str]:
    robot = wanted[0]["robot"]
    visible = {one["name"] for one in wanted if one["robot"] == robot and one["kind"] != "closed"}
    shown = set(re.findall(r"/sympa/info/([\w.+-]+)", page(host, robot, "/lists")))
    wrong = [f"pages of {robot}: {sorted(shown ^ visible)}"] if shown != visible else []
    open_one = next(one for one in wanted if one["kind"] != "closed")
    said = page(host, open_one["robot"], f"/info/{open_one['name']}")
    return wrong + ([] if open_one["subject"] in said else [f"page of {open_one['name']}"])


def grown(host: Host, wanted: dict[str, Any], counts: dict[str, int], growth: int) -> dict[str, Any]:
    """Load that many subscriptions from nothing; return what it took, or what broke."""
    host.sql("TRUNCATE subscriber_table; TRUNCATE user_table;")
    host.run("rm -f /var/lib/infini-sympa/known.json /var/lib/infini-sympa/settled.json")
    people = growth * counts["people"] // counts["subscriptions"]
    with subscribers_file(wanted["sympa_lists"], growth, people) as path:
        try:
            return {"subscriptions": growth, **apply(host, {**wanted, "sympa_subscribers": str(path)})[1]}
        except RuntimeError as error:
            return {"subscriptions": growth, "broke": str(error)[-500:]}


def to_many(host: Host, wanted: dict[str, Any], readers: int) -> dict[str, Any]:
    """Send one message to a list of that many mailboxes of this host, through all that a real one passes.

    Sympa signs and seals it, Rspamd reads what Sympa hands over, Dovecot files it by Sieve, mailbox after mailbox.
    """
    signing = {"dkim": {"selector": "l1"}, "arc": {"selector": "l1"}, "dmarc": {"mode": ["all"]}}
    robot = {**wanted["sympa_robots"][0], **signing, "settings": {"dkim_signature_apply_on": "any"}}
    many = {**wanted["sympa_lists"][0], "name": MANY, "robot": robot["name"], "kind": "closed"}
    others = [{**one, "managed": False} for one in wanted["sympa_lists"]]
    people = [f"lecteur{number}@{READERS}" for number in range(readers)]
    ours = ("domains", "mailboxes", "aliases", "catch_alls")
    mail = {name: plain(host.inventory.get(host.name, f"mail_{name}")) for name in ours}
    mail["domains"] = [*mail["domains"], {"name": READERS}]
    mail["mailboxes"] = [*mail["mailboxes"], *({"address": person} for person in people)]
    with tempfile.TemporaryDirectory() as folder:
        boxes, file = Path(folder, "mail.json"), Path(folder, "subscribers.tsv")
        boxes.write_text(json.dumps(mail))
        file.write_text("list\temail\n" + "".join(f"{MANY}@{robot['name']}\t{person}\n" for person in people))
        done = play(playbook_path("mail"), str(host.inventory.path), {"mail_file": str(boxes)})
        if not done.ok:
            raise RuntimeError(done.sentence())
        robots = [robot, *wanted["sympa_robots"][1:]]
        apply(host, {"sympa_robots": robots, "sympa_lists": [*others, many], "sympa_subscribers": str(file)})
    words = f"{people[0]} {MANY}@{robot['name']} /srv/mail/{READERS} {readers} {PATIENCE}"
    answer: dict[str, Any] = json.loads(host.run(f"python3 - {words}", ON_HOST.read_text()))
    return answer


def judged(figures: dict[str, float | None]) -> dict[str, dict[str, Any]]:
    """Put each figure beside what is wanted; one that was not measured or broke is not met."""
    return {
        name: {
            "wanted at most": most,
            "measured": None if (value := figures[name]) is None else round(value, 2),
            "met": value is not None and value <= most,
        }
        for name, most in WANTED.items()
    }


def measure(host: Host, counts: dict[str, int], one_by_one: int, growth: int, readers: int) -> dict[str, Any]:
    """Measure everything on a host where the play has run once."""
    wanted: dict[str, Any] = {
        "sympa_robots": robots(counts["robots"]),
        "sympa_lists": lists(counts["lists"], counts["robots"]),
    }
    close_what_is_declared(host)
    with subscribers_file(wanted["sympa_lists"], counts["subscriptions"], counts["people"]) as path:
        wanted["sympa_subscribers"] = str(path)
        _, nothing = apply(host, wanted)
        settled, again = apply(host, wanted)
        wanted["sympa_lists"][1]["subject"] = "Un autre sujet"
        address = "{name}@{robot}".format(**wanted["sympa_lists"][1])
        text = path.read_text()
        path.write_text(text + f"{address}\tnouvelle@ailleurs.example\tNouvelle venue\tmail\tnoconceal\t\n")
        changed, one = apply(host, wanted)
        one["play after the preflight"] = as_a_tech_does(host, wanted)
        raw = raw_load(host)
        found = host.sql(THERE).split()
        wrong = disagreements(host, wanted["sympa_lists"], path)
    own = by_its_own_commands(host, one_by_one, counts) if one_by_one else {}
    message = to_many(host, wanted, readers) if readers else {}
    more = grown(host, wanted, counts, growth) if growth else {}
    each = nothing["subscribers"] / counts["subscriptions"]
    verdict = judged(
        {
            "no change, whole run": again["play"],
            "one list, whole run": one["play"],
            "lists from nothing": nothing["lists"],
            "subscribers from nothing / raw load": nothing["subscribers"] / raw,
            "seconds a subscription, grown / as they are": more["subscribers"] / growth / each
            if "subscribers" in more
            else None,
        }
    )
    return {
        "ok": all(one["met"] for one in verdict.values())
        and not settled.changed
        and bool(changed.changed)
        and message.get("mailboxes reached", 0) == readers
        and not wrong,
        "measures": {
            "from nothing": nothing,
            "no change": {**again, "tasks that changed": settled.changed},
            "one list and one subscriber": {**one, "tasks that changed": changed.changed},
            "raw load of the same rows": {"seconds": round(raw, 2)},
            "its own commands": own,
            "grown": more,
            "a message to many": {"mailboxes wanted": readers, **message},
            "there afterwards": dict(zip(("subscriptions", "people", "lists", "robots"), map(int, found), strict=True)),
            "disagreements": dict(enumerate(wrong[:20])),
            **{f"wanted: {name}": one for name, one in verdict.items()},
        },
        "ratios": {
            "subscribers from nothing/raw load": round(nothing["subscribers"] / raw, 2),
            **compared(own, nothing),
        },
    }


def compared(own: dict[str, Any], nothing: dict[str, float]) -> dict[str, float]:
    """Return how many times longer Sympa's own commands would take, which were tried on few."""
    if not own:
        return {}
    return {
        "lists, its own commands (extrapolated)/ours": round(
            own["extrapolated minutes, lists"] * 60 / nothing["lists"], 1
        ),
        "subscribers, its own commands (extrapolated)/ours": round(
            own["extrapolated hours, subscribers"] * 3600 / nothing["subscribers"], 1
        ),
    }


def run(
    robots: int = 110,
    lists: int = 1419,
    subscriptions: int = 309614,
    people: int = 225754,
    one_by_one: int = 50,
    growth: int = 3_000_000,
    readers: int = 10_000,
) -> dict[str, Any]:
    """Measure and return what `infini bench lists --json` prints; a `growth` or `readers` of 0 leaves it out, unmet."""
    staging.up()
    counts = {"robots": robots, "lists": lists, "subscriptions": subscriptions, "people": people}
    try:
        return measure(Host(Inventory(staging.INVENTORY)), counts, one_by_one, growth, readers)
    finally:
        staging.down()
