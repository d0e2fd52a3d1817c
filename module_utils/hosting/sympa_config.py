# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration files of Sympa: a list's paragraphs, a robot's lines.

The first comment of a list's file names the parameters that are ours: `# infini: subject send`. Sympa keeps comments
when somebody changes a list on the web, so that the file says what the data own; the rest is its owners' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

MARK = "# infini:"
_BOOKKEEPING = ("creation", "update", "serial")
# Sympa writes `owner_notify` where it reads `owner,notify`.
_SCENARIOS = {"visibility", "send", "info", "subscribe", "add", "unsubscribe", "del", "invite", "remind", "review"}
# Parameters whose values stand on one line, with commas between them.
_ON_ONE_LINE = {
    "topics",
    "remove_headers",
    "remove_outgoing_headers",
    "rfc2369_header_fields",
    "dkim_signature_apply_on",
}

Value = Union[str, dict[str, str]]
"""A parameter's line, or the lines of its paragraph."""


@dataclass(frozen=True)
class Config:
    """One list's configuration: its parameters in their order, and which of them are ours."""

    values: Mapping[str, list[Value]] = field(default_factory=dict)
    owned: tuple[str, ...] | None = None  # None: nobody declared this list
    comments: tuple[str, ...] = ()

    def line(self, name: str, key: str | None = None) -> str:
        """Return a parameter's line, or a line of its paragraph; empty where there is none."""
        for value in self.values.get(name, []):
            if isinstance(value, dict):
                return value.get(key or "", "")
            return value if key is None else ""
        return ""

    def text(self) -> str:
        """Write the file."""
        head = [] if self.owned is None else [" ".join([MARK, *self.owned])]
        blocks = ["\n".join([*head, *self.comments])] if head or self.comments else []
        last = [name for name in _BOOKKEEPING if name in self.values]
        for name in [*(name for name in self.values if name not in last), *last]:
            blocks += [_block(name, value) for value in self.values[name]]
        return "\n\n".join(blocks) + "\n"


def pair(line: str) -> tuple[str, str]:
    """Part a line into its parameter and its value: by hand, tabs are as good as spaces."""
    name, *rest = line.split(None, 1) or [""]
    return name, "".join(rest).strip()


def parse(text: str) -> Config:
    """Read a list's file as Sympa does."""
    values: dict[str, list[Value]] = {}
    comments: list[str] = []
    owned: tuple[str, ...] | None = None
    for block in re.split(r"\n[ \t]*(?=\n)", text):
        lines = []
        for line in filter(str.strip, block.split("\n")):
            if line.startswith(MARK):
                owned = tuple(line[len(MARK) :].split())
            elif line.lstrip().startswith("#"):
                comments.append(line)
            else:
                lines.append(line.strip())
        if lines:
            name, rest = pair(lines[0])
            value = rest if rest or not lines[1:] else dict(map(pair, lines[1:]))
            values.setdefault(name, []).append(value)
    return Config(values, owned, tuple(comments))


def parse_topics(text: str) -> list[str]:
    """Read the names of topics.conf, one at the head of each paragraph."""
    blocks = re.split(r"\n[ \t]*(?=\n)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [block.split()[0] for block in blocks if block.split()]


def wanted_values(parameters: Mapping[str, Any]) -> dict[str, list[Value]]:
    """Turn declared parameters into those of a file."""
    return {name: _values(name, value) for name, value in parameters.items()}


def merge(found: Config, wanted: Mapping[str, list[Value]]) -> Config:
    """Lay the wanted parameters over a file: what was ours and is no more goes, what is others' stays."""
    ours = tuple(sorted(wanted))
    gone = set(found.owned or ()) - set(ours)
    kept: dict[str, list[Value]] = {name: values for name, values in found.values.items() if name not in gone}
    for name, values in wanted.items():
        if not _fits(kept.get(name, []), values):
            kept[name] = _over(kept.get(name, []), values)
    return Config(kept, ours, found.comments)


def render_robot(entry: Mapping[str, Any], url: str) -> str:
    """Write a robot's file: all of it is ours."""
    lines = {
        "wwsympa_url": entry.get("url") or url.format(robot=entry["name"]),
        "title": entry.get("title") or entry["name"],
        "listmaster": ",".join(entry["listmasters"]),
        "lang": entry.get("language") or "fr",
        **_signing(entry),
        **{name: one_line(value, ",") for name, value in (entry.get("settings") or {}).items()},
    }
    return f"{MARK} declared\n" + "".join(f"{name} {value}\n" for name, value in lines.items())


def _signing(entry: Mapping[str, Any]) -> dict[str, str]:
    dkim, arc, dmarc = entry.get("dkim") or {}, entry.get("arc") or {}, entry.get("dmarc") or {}
    lines: dict[str, str] = {}
    if dkim:
        lines |= {
            "dkim_feature": "on",
            "dkim_parameters.private_key_path": dkim["key_file"],
            "dkim_parameters.selector": dkim["selector"],
            "dkim_parameters.signer_domain": dkim.get("domain") or entry["name"],
        }
    if arc:
        lines |= {
            "arc_feature": "on",
            "arc_srvid": arc.get("server") or entry["name"],
            "arc_parameters.arc_private_key_path": arc["key_file"],
            "arc_parameters.arc_selector": arc["selector"],
            "arc_parameters.arc_signer_domain": arc.get("domain") or entry["name"],
        }
    if dmarc.get("mode"):
        lines["dmarc_protection.mode"] = ",".join(dmarc["mode"])
        names = ("other_email", "phrase", "domain_regex")
        lines |= {f"dmarc_protection.{name}": dmarc[name] for name in names if dmarc.get(name)}
    return lines


def _values(name: str, value: Any) -> list[Value]:
    if isinstance(value, Mapping):
        return [{key: one_line(one) for key, one in value.items()}]
    if isinstance(value, (list, tuple)):
        if name in _ON_ONE_LINE:
            return [one_line(value, ",")]
        return [one for each in value for one in _values(name, each)]
    return [one_line(value).replace(",", "_") if name in _SCENARIOS else one_line(value)]


def one_line(value: Any, between: str = " ") -> str:
    """Write a value as it stands behind its parameter."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return between.join(one_line(one) for one in value)
    return " ".join(str(value).split())


def _fits(found: list[Value], wanted: list[Value]) -> bool:
    return len(found) == len(wanted) and all(map(_one_fits, found, wanted))


def _one_fits(found: Value, wanted: Value) -> bool:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(found.get(key, "").split() == value.split() for key, value in wanted.items())
    return isinstance(found, str) and isinstance(wanted, str) and found.split() == wanted.split()


def _over(found: list[Value], wanted: list[Value]) -> list[Value]:
    """Keep the further lines of a paragraph, which Sympa fills with its defaults when somebody saves the list."""
    if len(found) == len(wanted) == 1 and isinstance(found[0], dict) and isinstance(wanted[0], dict):
        return [{**found[0], **wanted[0]}]
    return list(wanted)


def _block(name: str, value: Value) -> str:
    if isinstance(value, dict):
        return "\n".join([name, *_lines(value.items())])
    return f"{name} {value}"


def _lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key} {value}" for key, value in pairs]
