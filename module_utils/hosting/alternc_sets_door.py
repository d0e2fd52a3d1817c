# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a panel's host answers to the `alternc_*` modules: read the panel, plan whole sets, carry them out, say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import alternc_door, alternc_kinds, alternc_sets
from .alternc_data import Entry, Panel, quota_rows
from .alternc_sets import Kind, Plan, SetError, Wishes
from .brake import UnsafePlanError

Spec = dict[str, Any]
Sets = Sequence[tuple[Kind, Sequence[Mapping[str, Any]]]]

NO: Spec = {"type": "bool", "default": False}
YES: Spec = {"type": "bool", "default": True}
TEXT: Spec = {"type": "str", "default": ""}
NUMBER: Spec = {"type": "int", "default": 0}
NEEDED: Spec = {"type": "str", "required": True}
NAMES: Spec = {"type": "list", "elements": "str", "default": []}
SECRETS = {"password": {"type": "str", "no_log": True}, "password_hash": {"type": "str", "no_log": True}}
OWNING = {"prune": YES, "remove": NAMES, "confirm_removals": NAMES, "scope": {"type": "list", "elements": "str"}}
PASSWORDS = {
    "update_password": {"type": "str", "choices": ["on_create", "always"], "default": "on_create", "no_log": False}
}


def _entries(options: Spec, *, required: bool = True) -> Spec:
    more: Spec = {"required": True} if required else {"default": []}
    return {"type": "list", "elements": "dict", "options": options, **more}


def _text(value: object) -> str:
    """Return a variable's value as AlternC keeps it."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _quotas(options: Entry) -> Sets:
    rows, problems = quota_rows(options["defaults"], options["members"])
    if problems:
        raise SetError("\n".join(problems))
    return [(alternc_kinds.QUOTAS, rows)]


def _databases(options: Entry) -> Sets:
    databases, users = options["databases"], options["users"]
    problems = list(alternc_kinds.strange_databases(databases, users))
    if problems:
        raise SetError("\n".join(problems))
    # Databases first: AlternC makes a user with each, which the declared one then takes over.
    return [(alternc_kinds.DATABASES, databases), (alternc_kinds.DATABASE_USERS, users)]


@dataclass(frozen=True)
class Module:
    """One of the modules: its options, and the sets that they declare."""

    spec: Spec
    sets: Callable[[Entry], Sets]


MODULES = {
    "alternc_members": Module(
        {
            "members": _entries(
                {
                    "login": NEEDED,
                    **dict.fromkeys(("name", "first_name", "mail", "notes"), TEXT),
                    "profile": {"type": "str", "default": "default"},
                    "enabled": YES,
                    "admin": NO,
                    "duration": NUMBER,
                    **SECRETS,
                }
            ),
            **OWNING,
            **PASSWORDS,
        },
        lambda options: [(alternc_kinds.MEMBERS, options["members"])],
    ),
    "alternc_domains": Module(
        {
            "domains": _entries(
                {
                    "name": NEEDED,
                    "member": NEEDED,
                    "dns": YES,
                    "mail": YES,
                    "ttl": {"type": "int", "default": 3600},
                    "keep": NO,
                }
            ),
            **OWNING,
        },
        lambda options: [(alternc_kinds.DOMAINS, options["domains"])],
    ),
    "alternc_subdomains": Module(
        {
            "subdomains": _entries(
                {
                    "domain": NEEDED,
                    "sub": TEXT,
                    "type": NEEDED,
                    "value": TEXT,
                    "https": {"type": "str", "choices": ["", "http", "https", "both"], "default": ""},
                    "enabled": YES,
                }
            ),
            "ignore": {
                "type": "list",
                "elements": "str",
                "choices": list(alternc_kinds.FAMILIES),
                "default": list(alternc_kinds.FAMILIES),
            },
            "confirm_domains": NAMES,
            **OWNING,
        },
        lambda options: [(alternc_kinds.SUBDOMAINS, alternc_kinds.without_dkim(options["subdomains"]))],
    ),
    "alternc_mailboxes": Module(
        {
            "mailboxes": _entries(
                {
                    "address": NEEDED,
                    "mailbox": NO,
                    "quota_mb": NUMBER,
                    "enabled": YES,
                    "forwards": NAMES,
                    **SECRETS,
                }
            ),
            **OWNING,
            **PASSWORDS,
        },
        lambda options: [(alternc_kinds.MAILBOXES, options["mailboxes"])],
    ),
    "alternc_databases": Module(
        {
            "databases": _entries({"name": NEEDED, "member": NEEDED}),
            "users": _entries(
                {"name": NEEDED, "member": NEEDED, "databases": NAMES, "password": SECRETS["password"]}, required=False
            ),
            **OWNING,
            **PASSWORDS,
        },
        _databases,
    ),
    "alternc_ftp_accounts": Module(
        {
            "accounts": _entries(
                {
                    "name": NEEDED,
                    "member": NEEDED,
                    "directory": {"type": "str", "default": "/"},
                    "enabled": YES,
                    **SECRETS,
                }
            ),
            **OWNING,
            **PASSWORDS,
        },
        lambda options: [(alternc_kinds.FTP_ACCOUNTS, options["accounts"])],
    ),
    "alternc_domain_types": Module(
        {
            "types": _entries(
                {
                    "name": NEEDED,
                    "description": TEXT,
                    "target": {"type": "str", "choices": list(alternc_kinds.TARGETS), "default": "NONE"},
                    "entry": TEXT,
                    "compatibility": NAMES,
                    "enable": {"type": "str", "choices": ["ALL", "NONE", "ADMIN"], "default": "ALL"},
                    **dict.fromkeys(("only_dns", "need_dns", "advanced", "create_tmpdir", "create_targetdir"), NO),
                    "has_https_option": NO,
                }
            ),
            "remove": NAMES,
        },
        lambda options: [(alternc_kinds.DOMAIN_TYPES, options["types"])],
    ),
    "alternc_variables": Module(
        {"variables": {"type": "dict", "required": True}},
        lambda options: [
            (
                alternc_kinds.VARIABLES,
                [{"name": name, "value": _text(value)} for name, value in options["variables"].items()],
            )
        ],
    ),
    "alternc_quotas": Module(
        {"defaults": {"type": "dict", "default": {}}, "members": {"type": "dict", "default": {}}},
        _quotas,
    ),
}


def answer(asked: Entry, *, module: str, check_mode: bool, diff: bool = False) -> dict[str, Any]:
    """Bring the panel to what is asked of one of the modules and return a result in Ansible's words."""
    try:
        sets = MODULES[module].sets(asked)
        installed = alternc_door.is_installed()
        # A check on a host that is still to become a panel finds an empty one.
        panel = alternc_door.read() if installed or not check_mode else Panel()
        plans = [_plan(asked, kind, entries, panel, fresh=check_mode) for kind, entries in sets]
        outcome = alternc_door.Outcome() if check_mode else alternc_door.carry(plans)
    except (SetError, UnsafePlanError, alternc_door.PanelError) as error:
        return {"failed": True, "msg": str(error)}
    result = _result(plans)
    if not diff:
        del result["diff"]
    if outcome.sentence():
        told = {"done": list(outcome.done), "refusals": list(outcome.failed), "untried": list(outcome.untried)}
        return {**result, **told, "failed": True, "msg": outcome.sentence()}
    return result


def _plan(options: Entry, kind: Kind, entries: Sequence[Mapping[str, Any]], panel: Panel, *, fresh: bool) -> Plan:
    always = options.get("update_password") == "always"
    fits = alternc_door.fitting(kind.name, alternc_sets.passwords(kind, entries, panel)) if always else set()
    mine = {row[kind.key] for row in panel.rows(kind.name) if kind.key in row}
    named = set(options.get("remove") or ())
    domains = set(options.get("confirm_domains") or ())
    rows = kind.indexed(panel.rows(kind.name), panel) if domains else {}
    wishes = Wishes(
        prune=options.get("prune", False),
        scope=None if options.get("scope") is None else set(options["scope"]),
        remove=named if kind.index else named & (mine | {entry[kind.key] for entry in entries}),
        confirmed={
            *(options.get("confirm_removals") or ()),
            *named,
            *(key for key, row in rows.items() if row["domain"] in domains),
        },
        always=always,
        fits=fits,
        fresh=fresh,
        ignore=options.get("ignore") or (),
    )
    return alternc_sets.plan(kind, entries, panel, wishes)


def _result(plans: Sequence[Plan]) -> dict[str, Any]:
    def named(*verbs: str) -> list[str]:
        return [key for plan in plans for key in plan.named(*verbs)]

    return {
        "changed": any(plan.changed for plan in plans),
        "created": named("create"),
        "mended": named("change"),
        "shut": named("shut"),
        "removed": named("remove"),
        "kept": [key for plan in plans for key in plan.kept],
        "diff": alternc_sets.diff(plans),
    }
