# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we add to a Postfix that AlternC configures, and what of its domains we follow: the thinking.

AlternC owns main.cf and master.cf. It sets what it knows each time alternc.install runs, and refuses to run where
master.cf is not as it left it. So our settings stand beside its own and come back after them, and our entries are a
block that is taken out before it looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BEGIN, END = "# What infini-mail-panel adds: begin", "# What infini-mail-panel adds: end"


OWNED = {
    "mail_domains": "alternc_declared.domains (alternc_domains)",
    "mail_mailboxes": "alternc_declared.mailboxes (alternc_mailboxes)",
    "mail_aliases": "alternc_declared.mailboxes (alternc_mailboxes)",
    "mail_catch_alls": "alternc_declared.mailboxes (alternc_mailboxes)",
    "mail_file": "alternc_declared (alternc_mailboxes)",
}
"""What AlternC has where it has the mail, and where the inventory declares it then."""
SELECTOR = "alternc"


_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
"""What may be part of a path."""


@dataclass(frozen=True)
class Domain:
    """A domain as AlternC's database knows it."""

    name: str
    account: str
    mail: bool


def problems(said: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each thing that cannot be where AlternC is to have the mail."""
    if said.get("mail_mode") != "panel":
        return []
    found = [
        f"{name} is not for a host where AlternC has the mail: it belongs to {where}, or to those who use the panel"
        for name, where in OWNED.items()
        if said.get(name)
    ]
    if said.get("hosting_panel") != "alternc":
        found.append("mail_mode is panel, but this host has no AlternC: set it to declared, or put it among the panels")
    if said.get("mail_selector") != SELECTOR:
        selector = said.get("mail_selector")
        found.append(f"mail_selector is {selector}, but AlternC publishes its keys as {SELECTOR}: set it so")
    return found


def domains(rows: Iterable[str]) -> list[Domain]:
    """Read lines of name, account and whether its mail is here, tabs between; what is no name is passed over."""
    cells = (row.rstrip("\n").split("\t") for row in rows)
    found = [Domain(name.lower(), account, mail == "1") for name, account, mail in cells]
    return sorted((one for one in found if _NAME.fullmatch(one.name)), key=lambda one: one.name)


def accounts(found: Iterable[Domain]) -> str:
    """Return whose each domain is, a line each: what the budget of outgoing mail reads."""
    return "".join(f"{one.name} {one.account}\n" for one in found)


def settings(text: str) -> dict[str, str]:
    """Return what a main.cf says, each value as one line; the last word on a setting counts."""
    return {name: value for name, value, _start, _end in _settings(text)}


def set_to(text: str, wanted: Mapping[str, str | None]) -> str:
    """Return a main.cf with other settings; None takes one out. All else stays as it is, to the byte."""
    current = settings(text)
    changes = {
        name: value
        for name, value in wanted.items()
        if current.get(name) != (None if value is None else " ".join(value.split()))
    }
    lines = text.splitlines(keepends=True)
    left = {name: f"{name} = {value}\n" for name, value in changes.items() if value is not None}
    for name, _value, start, end in reversed(list(_settings(text))):
        if name in changes:  # the last one counts: that one is written, others before it go
            lines[start:end] = [left.pop(name)] if name in left else []
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join([*lines, *left.values()])


def joined(text: str, ours: Mapping[str, str], theirs: Mapping[str, str], before: Mapping[str, str | None]) -> str:
    """Return main.cf with our settings; what is no more is as AlternC says, or as it was before it was ours."""
    gone = {name: theirs.get(name, was) for name, was in before.items() if name not in ours}
    return set_to(text, {**gone, **ours})


def remembered(text: str, ours: Mapping[str, str], before: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what our settings were in a main.cf before they were ours."""
    current = settings(text)
    return {name: before[name] if name in before else current.get(name) for name in sorted(ours)}


def with_entries(text: str, entries: str) -> str:
    """Return a master.cf with our entries at its end."""
    own = without_entries(text)
    entries = "".join(f"{line}\n" for line in entries.splitlines() if line.strip())
    return f"{own}{BEGIN}\n{entries}{END}\n" if entries else own


def without_entries(text: str) -> str:
    """Return a master.cf as it was before our entries came."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    return before + rest.partition(f"{END}\n")[2] if begin else text


def _settings(text: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield name and value of each setting, with the lines from and to which it goes."""
    name, words, start, end = "", [""], 0, 0
    for number, line in enumerate(text.splitlines()):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            words.append(line)
            end = number + 1
            continue
        if name:
            yield name, " ".join(" ".join(words).split()), start, end
        name, _, value = line.partition("=")
        name, words, start, end = name.strip(), [value], number, number + 1
    if name:
        yield name, " ".join(" ".join(words).split()), start, end
