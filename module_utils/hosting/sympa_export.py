# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""An existing Sympa as the data that `sympa_robots`, `sympa_lists` and `sympa_subscribers` take, whoever made it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .sympa import BOOKKEEPING, CUSTOM, FIELDS, KINDS
from .sympa_config import Config, Value, merge, pair, wanted_values
from .sympa_plan import OPEN, Admin, List
from .sympa_subscribers import COLUMNS, Subscriber

_ROBOT_FIELDS = {"title": "title", "lang": "language", "wwsympa_url": "url"}
_ROBOT_GROUPS = {
    "dkim_parameters.private_key_path": ("dkim", "key_file"),
    "dkim_parameters.selector": ("dkim", "selector"),
    "dkim_parameters.signer_domain": ("dkim", "domain"),
    "arc_srvid": ("arc", "server"),
    "arc_parameters.arc_private_key_path": ("arc", "key_file"),
    "arc_parameters.arc_selector": ("arc", "selector"),
    "arc_parameters.arc_signer_domain": ("arc", "domain"),
    "dmarc_protection.mode": ("dmarc", "mode"),
    "dmarc_protection.other_email": ("dmarc", "other_email"),
    "dmarc_protection.phrase": ("dmarc", "phrase"),
    "dmarc_protection.domain_regex": ("dmarc", "domain_regex"),
}
# Names that Sympa gave to the same before its release 6.2.56.
_OLD_NAMES = {name.replace("arc_parameters.", "").replace(".", "_"): name for name in _ROBOT_GROUPS} | {
    name.replace("dkim_parameters.", "dkim_"): name for name in _ROBOT_GROUPS if name.startswith("dkim")
}


def export_robot(name: str, text: str) -> dict[str, Any]:
    """Return a robot's file as data."""
    found: dict[str, Any] = {"name": name, "listmasters": [], "settings": {}}
    for line in text.splitlines():
        key, value = pair(line)
        key = _OLD_NAMES.get(key, key)
        if not key or key[0] in "#;":
            continue
        if key == "listmaster":
            found["listmasters"] += [one.strip() for one in value.split(",") if one.strip()]
        elif key in _ROBOT_FIELDS:
            found[_ROBOT_FIELDS[key]] = value
        elif key in _ROBOT_GROUPS:
            group, field = _ROBOT_GROUPS[key]
            found.setdefault(group, {})[field] = value.split(",") if field == "mode" else value
        elif (key, value) not in (("dkim_feature", "on"), ("arc_feature", "on")):
            found["settings"][key] = value
    for group in ("dkim", "arc"):
        if not {"key_file", "selector"} <= found.get(group, {}).keys():
            found.pop(group, None)
    return found


def export_list(address: str, one: List) -> dict[str, Any]:
    """Return a list as data: of the kind that fits it, with what is beside the kind as settings."""
    name, _, robot = address.partition("@")
    entry: dict[str, Any] = {
        "name": name,
        "robot": robot,
        "kind": next((kind for kind in KINDS if kind != CUSTOM and _fits(kind, one.config)), CUSTOM),
        "subject": " ".join(one.config.line("subject").split()) or name,
        "status": OPEN if one.status == OPEN else "closed",
        "owners": [_person(admin) for admin in _of(one.admins, "owner")],
        "moderators": [_person(admin) for admin in _of(one.admins, "editor")],
    }
    if one.info.strip():
        entry["description"] = one.info.rstrip()
    if one.config.line("topics"):
        entry["topics"] = [topic.strip() for topic in one.config.line("topics").split(",")]
    if one.config.line("lang"):
        entry["language"] = one.config.line("lang")
    settings = {key: _data(values) for key, values in _beside(entry["kind"], one.config)}
    return {**entry, "settings": settings} if settings else entry


def export_subscribers(found: Iterable[tuple[str, Mapping[str, Subscriber]]]) -> Iterator[str]:
    """Return the lines of the file of subscribers."""
    yield "\t".join(COLUMNS) + "\n"
    for address, them in found:
        for email, one in sorted(them.items()):
            name = " ".join(one.name.split())
            yield "\t".join((address, email, name, one.reception, one.visibility, str(one.date or ""))) + "\n"


def _fits(kind: str, config: Config) -> bool:
    return merge(config, wanted_values(KINDS[kind])).values == config.values


def _beside(kind: str, config: Config) -> Iterator[tuple[str, list[Value]]]:
    for name, values in config.values.items():
        if name in FIELDS or name in BOOKKEEPING or name == "lang":
            continue
        if wanted_values(KINDS[kind]).get(name) != values:
            yield name, values


def _data(values: list[Value]) -> Any:
    return values[0] if len(values) == 1 else values


def _of(admins: Iterable[Admin], role: str) -> list[Admin]:
    return sorted((admin for admin in admins if admin.role == role), key=lambda admin: admin.email)


def _person(admin: Admin) -> dict[str, Any]:
    person: dict[str, Any] = {"email": admin.email}
    if admin.name:
        person["name"] = admin.name
    if admin.info:
        person["info"] = admin.info
    if admin.role == "owner" and admin.profile != "privileged":
        person["privileged"] = False
    if admin.reception == "nomail":
        person["receives"] = False
    if admin.visibility == "conceal":
        person["hidden"] = True
    return person
