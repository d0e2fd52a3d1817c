# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's move in a small world that lives in one file, so that a killed process leaves it as the real one would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infini.domains.events import LocalStore
from infini.domains.move import CodeVault, Move, Step, content_hash, remember
from infini.domains.observed import (
    Delegation,
    Difference,
    DomainFacts,
    Export,
    Level,
    ParentAnswer,
    Parity,
    Quote,
    RdapFacts,
    Redirection,
    ServerAnswer,
    Tally,
    TransferOrder,
)
from infini.domains.plan import Options
from infini.domains.ports import ByHandError, WorldError
from infini.domains.secrets import AuthCode, Secret
from infini.domains.states import State, legal
from infini.domains.waves import Pace, Waves
from infini.domains.zone import Rrset, Zone
from infini.errors import RefusedError

DOMAIN = "asso.example"
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
OLD = ("ns-1-a.gandi.net", "ns-2-b.gandi.net")
NEW = ("ns1.infini.test", "ns2.infini.test")
RECORDS = [
    {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.10"]},
    {"rrset_name": "www", "rrset_type": "CNAME", "rrset_ttl": 3600, "rrset_values": [f"{DOMAIN}."]},
]


class World:
    """Every door of a move, on one JSON file: each change is written whole before the call returns.

    `calls` counts what was done to the world; `fault` is called before and after each change, and may raise or die.
    """

    name = "Gagnant"
    nameservers = NEW
    minimum_ttl = 300

    def __init__(self, path: Path, fault: Callable[[str, str], None] | None = None) -> None:
        self.path, self.fault = path, fault or (lambda _when, _what: None)
        if not path.exists():
            self._write(
                {
                    "now": START.isoformat(),
                    "records": RECORDS,
                    "ttl": None,
                    "delegation": list(OLD),
                    "ds": [],
                    "dnskeys": [],
                    "signed": False,
                    "served": None,
                    "locked": True,
                    "unlock_at": None,
                    "code": "X-first-c0de",
                    "bad_codes": [],
                    "order": None,
                    "order_at": None,
                    "registrar": "Gandi SAS",
                    "secured": False,
                    "mailboxes": [],
                    "redirections": [],
                    "refuse": "",
                    "probe": True,
                    "failed": 0,
                    "differs": False,
                    "calls": {},
                }
            )

    def _write(self, data: dict[str, Any]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(data))
        new.replace(self.path)

    def state(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.path.read_text())
        now = datetime.fromisoformat(data["now"])
        if data["unlock_at"] and now >= datetime.fromisoformat(data["unlock_at"]):
            data["locked"] = False
        if data["order"] and data["order"]["stage"] == "pending":
            if data["order"]["code"] in data["bad_codes"]:
                data["order"].update(stage="refused", reason="invalid auth code")
            elif data["refuse"]:
                data["order"].update(stage="refused", reason=data["refuse"])
            elif now >= datetime.fromisoformat(data["order_at"]) + timedelta(days=5):
                data["order"]["stage"] = "done"
                data["registrar"] = "GAGNANT SARL"
        return data

    @contextmanager
    def change(self, what: str) -> Iterator[dict[str, Any]]:
        self.fault("before", what)
        data = self.state()
        yield data
        data["calls"][what] = data["calls"].get(what, 0) + 1
        self._write(data)
        self.fault("after", what)

    def set(self, **values: Any) -> None:
        self._write({**self.state(), **values})

    def calls(self) -> dict[str, int]:
        found: dict[str, int] = self.state()["calls"]
        return found

    # the clock
    def now(self) -> datetime:
        return datetime.fromisoformat(self.state()["now"])

    def sleep(self, seconds: float) -> None:
        self.set(now=(self.now() + timedelta(seconds=seconds)).isoformat())

    def until(self, moment: datetime) -> None:
        self.set(now=max(moment, self.now()).isoformat())

    # Gandi
    def domains(self) -> list[DomainFacts]:
        return [self.facts()]

    def facts(self) -> DomainFacts:
        data = self.state()
        if data["registrar"] != "Gandi SAS":
            raise WorldError("HTTP 404: this domain is unknown here")
        return DomainFacts(
            DOMAIN,
            START + timedelta(days=300),
            START - timedelta(days=900),
            nameservers=tuple(data["delegation"]),
            registrar_lock=data["locked"],
        )

    def export(self, name: str) -> Export:
        data = self.state()
        ttl = data["ttl"]
        records = [
            {**row, "rrset_ttl": min(row["rrset_ttl"], ttl) if ttl else row["rrset_ttl"]} for row in data["records"]
        ]
        keys = tuple(data["dnskeys"])
        boxes = tuple(data["mailboxes"])
        led = tuple(data["redirections"])
        return Export(name, self.now(), tuple(records), "", "0" * 64, led, dnskeys=keys, mailboxes=boxes)

    def snapshot(self, _name: str, label: str) -> str:
        with self.change("snapshot"):
            return label

    def set_ttls(self, _name: str, _rrsets: Sequence[Rrset], ttl: int) -> None:
        with self.change("set_ttls") as data:
            data["ttl"] = ttl if ttl == 300 else None

    def set_nameservers(self, _name: str, nameservers: Sequence[str]) -> None:
        with self.change("set_nameservers") as data:
            assert data["calls"].get("snapshot"), "a write before the snapshot"
            data["delegation"] = list(nameservers)

    def restore_nameservers(self, _name: str) -> None:
        with self.change("restore_nameservers") as data:
            data["delegation"] = list(OLD)

    def remove_dnskeys(self, _name: str) -> None:
        with self.change("remove_dnskeys") as data:
            data["ds"], data["dnskeys"] = [], []

    def restore_dnskeys(self, _name: str, dnskeys: Sequence[dict[str, object]]) -> None:
        with self.change("restore_dnskeys") as data:
            data["ds"], data["dnskeys"] = ["12345 13 2 ab"], list(dnskeys)

    def set_lock(self, _name: str, locked: bool) -> None:
        with self.change("set_lock") as data:
            now = datetime.fromisoformat(data["now"])
            data["unlock_at"] = None if locked else data["unlock_at"] or (now + timedelta(hours=72)).isoformat()
            data["locked"] = locked or data["locked"]

    def auth_code(self, _name: str) -> str | None:
        data = self.state()
        return None if data["locked"] else data["code"]

    def reset_auth_code(self, _name: str) -> None:
        with self.change("reset_auth_code") as data:
            data["code"] = f"X-code-{data['calls'].get('reset_auth_code', 0)}-c0de"

    # the gaining registrar
    def quote(self, domain: str, _code: str, _nameservers: Sequence[str]) -> Quote:
        return Quote(domain, 12.0)

    def order(self, _domain: str, auth_code: str, nameservers: Sequence[str]) -> TransferOrder:
        assert tuple(nameservers) == NEW
        with self.change("order") as data:
            data["order"] = {"id": "7", "stage": "pending", "reason": "", "code": auth_code + ""}
            data["order_at"] = data["now"]
        return TransferOrder("7", "pending")

    def find_order(self, _domain: str) -> TransferOrder | None:
        order = self.state()["order"]
        return TransferOrder(order["id"], order["stage"], order["reason"]) if order else None

    def correct_auth_code(self, _order: TransferOrder, auth_code: str) -> None:
        with self.change("correct_auth_code") as data:
            data["order"] = {"id": "7", "stage": "pending", "reason": "", "code": auth_code + ""}
            data["order_at"] = data["now"]

    def secure(self, _domain: str) -> None:
        with self.change("secure") as data:
            data["secured"] = True

    # the target
    def provision(self, zone: Zone) -> None:
        with self.change("provision") as data:
            data["served"] = [str(rrset) for rrset in zone.rrsets.values()]

    def remove(self, _name: str) -> None:
        with self.change("remove") as data:
            data["served"] = None

    # the registry and the DNS
    def rdap(self) -> RdapFacts:
        data = self.state()
        away = data["registrar"] != "Gandi SAS"
        locked = data["secured"] if away else data["locked"]
        pending = bool(data["order"]) and data["order"]["stage"] == "pending"
        statuses = (["client transfer prohibited"] if locked else []) + (["pending transfer"] if pending else [])
        return RdapFacts(DOMAIN, data["registrar"], tuple(statuses), expires=START + timedelta(days=300))

    def delegation(self, name: str) -> Delegation:
        data = self.state()
        ds = frozenset(data["ds"])
        answer = {"nameservers": frozenset(data["delegation"]), "ds": ds, "ns_ttl": 3600, "ds_ttl": 86400}
        return Delegation(name, (ParentAnswer("a.nic.example", **answer), ParentAnswer("b.nic.example", **answer)))

    def servers(self, _name: str, nameservers: Sequence[str], rrsets: Sequence[Rrset] = ()) -> list[ServerAnswer]:
        data = self.state()
        if tuple(nameservers) == NEW:
            return [ServerAnswer(ns, "192.0.2.53", bool(data["served"]), 1) for ns in nameservers]
        ttls = {f"{rrset.name}/{rrset.type}": data["ttl"] or rrset.ttl for rrset in rrsets}
        keys = 3600 if data["signed"] else 0
        return [
            ServerAnswer(ns, "198.51.100.1", True, 9, data["signed"], ttls, ns_ttl=172800, key_ttl=keys)
            for ns in nameservers
        ]

    def parity(self, old: Zone, _new: Zone, _o: Sequence[str], _n: Sequence[str], sha256: str) -> Parity:
        wrong = (Difference("www", "A", NEW[0], "192.0.2.10", "-"),) if self.state()["differs"] else ()
        return Parity(old.name, self.now(), sha256, 40, 40 - len(wrong), unexpected=wrong, canary_caught=True)

    def tally(self, name: str) -> Tally | None:
        data = self.state()
        return Tally(name, START, self.now(), 500, data["failed"]) if data["probe"] else None


class GandiDoor:
    """The world as the losing registrar (its `domain` is not the registry's)."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def domain(self, _name: str) -> DomainFacts:
        return self._world.facts()


class RegistryDoor:
    def __init__(self, world: World) -> None:
        self._world = world

    def domain(self, _name: str) -> RdapFacts:
        return self._world.rdap()


class FileVault:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def put(self, domain: str, code: str, _expires: datetime | None) -> None:
        (self._folder / domain).write_text(code + "")

    def get(self, domain: str) -> str | None:
        path = self._folder / domain
        return Secret(path.read_text()) if path.exists() else None


def make_move(folder: Path, world: World, level: Level = "A", waves: Waves | None = None, **doors: Any) -> Move:
    store = doors.get("store") or LocalStore(folder / "events", durable=False)
    losing = doors.get("losing") or GandiDoor(world)
    return Move(
        DOMAIN,
        losing,
        doors.get("gaining") or world,
        world,
        RegistryDoor(world),
        world,
        store,
        world,
        doors.get("options") or Options(),
        level,
        "Camille",
        vault=FileVault(folder / "vault"),
        web=doors.get("web"),
        waves=waves,
    )


def answer(move: Move, step: Step) -> bool:
    """Decide as a human would; return whether there was something to decide."""
    decisions: dict[str, tuple[str, dict[str, Any]]] = {
        "mail-mode-missing": ("mail-mode", {"mode": "none"}),
        "consent-missing": ("consent", {"date": "2026-03-02", "payer": "Infini"}),
        "services-unchecked": ("services-checked", {}),
        "price-unconfirmed": ("price", {"euros": 12}),
    }
    if step.code not in decisions:
        return False
    move.decide(*decisions[step.code])
    return True


def drive(move: Move, world: World, until: State | None = None, limit: int = 300) -> Step:
    """Advance, decide and let time pass until nothing of it helps."""
    for _ in range(limit):
        step = move.run_until_blocked(until)
        if step.done or (until and step.state == until) or (step.blocked and not answer(move, step)):
            return step
        if step.side == State.WAITING:
            assert step.waiting_until is not None
            assert step.waiting_until > world.now()
            world.until(step.waiting_until)
    raise AssertionError(f"still at {step.state}: {step.verdict}")


def states(move: Move) -> list[str]:
    return [event.data["to"] for event in move.store.read(DOMAIN) if event.kind == "state"]


def assert_legal(move: Move) -> None:
    for event in move.store.read(DOMAIN):
        assert event.kind != "overtaken", event
        if event.kind == "state":
            assert legal(State(event.data["from"]), State(event.data["to"])), event


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world.json")


@pytest.fixture
def move(tmp_path: Path, world: World) -> Move:
    return make_move(tmp_path, world)


def test_a_plain_domain_goes_through_every_state_once_and_ends_well(move, world):
    step = drive(move, world)
    assert step.done
    skipped = {State.DISCOVERED, State.DS_REMOVED, State.RESECURED}
    assert states(move) == [state for state in State.__members__ if State(state) not in skipped][: len(states(move))]
    assert states(move)[-1] == "DONE"
    assert_legal(move)
    calls = world.calls()
    assert calls == {
        "snapshot": 1,
        "provision": 1,
        "set_ttls": 1,
        "set_nameservers": 1,
        "set_lock": 1,
        "order": 1,
        "secure": 1,
    }


def test_a_signed_domain_loses_its_ds_and_waits_before_the_switch(move, world):
    world.set(ds=["12345 13 2 ab"], dnskeys=[{"id": "1", "keytag": 12345}], signed=True)
    drive(move, world, State.DS_REMOVED)
    events = {event.data.get("action"): event.at for event in move.store.read(DOMAIN) if event.kind == "acted"}
    assert world.now() - events["remove-ds"] >= timedelta(seconds=(86400 + 3600) * 1.1)
    assert "switch" not in events
    assert drive(move, world).done
    assert "DS_REMOVED" in states(move)
    assert_legal(move)


def test_the_switch_settles_when_the_longest_delegation_is_forgotten_the_parents_or_the_zones_own(move, world):
    drive(move, world, State.NS_SWITCHED)
    switched = world.now()
    drive(move, world, State.SETTLED)
    assert world.now() - switched >= timedelta(seconds=172800)


def test_dry_run_writes_nothing(move, world):
    before = world.state()
    step = move.advance()
    assert (step.verdict.action, step.changed) == ("export", False)
    assert world.state() == before
    assert move.store.read(DOMAIN) == []


def test_no_word_of_the_code_is_in_what_is_kept_or_said(tmp_path, move, world):
    world.set(bad_codes=["X-first-c0de"])
    assert drive(move, world).done
    kept = b"".join(path.read_bytes() for path in (tmp_path / "events").rglob("*") if path.is_file())
    assert b"c0de" not in kept
    assert b"auth_code_sha256" in kept


def test_a_refused_code_is_replaced_and_the_order_corrected_not_repeated(move, world):
    world.set(bad_codes=["X-first-c0de"])
    assert drive(move, world).done
    calls = world.calls()
    assert (calls["order"], calls["correct_auth_code"], calls["reset_auth_code"]) == (1, 1, 1)
    assert_legal(move)


def test_a_code_that_the_dry_run_refuses_is_replaced_and_the_price_asked_all_the_same(tmp_path, world):
    class Picky(World):
        def quote(self, domain: str, code: str, _nameservers: Sequence[str]) -> Quote:
            return Quote(domain, 12.0, ("AUTH_INFO is wrong",) if code == "X-first-c0de" else ())

    picky = Picky(world.path)
    move = make_move(tmp_path, picky)
    assert drive(move, picky).done
    assert (world.calls()["order"], world.calls()["reset_auth_code"]) == (1, 1)
    kinds = [event.data.get("kind") or event.kind for event in move.store.read(DOMAIN)]
    assert kinds.index("price") < kinds.index("order-intent")


def test_a_transfer_ordered_by_hand_is_followed_at_the_registry(tmp_path, world):
    class ByHand(World):
        name = "Quelqu'un"

        def order(self, *_: object) -> TransferOrder:
            raise ByHandError("volunteer", "Commandez le transfert sur leur site.")

        def find_order(self, _domain: str) -> TransferOrder | None:
            return None

    hand = ByHand(world.path)
    move = make_move(tmp_path, hand)
    step = drive(move, hand)
    assert (step.code, step.who) == ("by-hand", "volunteer")
    assert move.run_until_blocked().code == "by-hand", "asked again, not waiting for an order that nobody placed"
    world.order(DOMAIN, "X-first-c0de", NEW)
    assert drive(move, hand).done
    assert_legal(move)


def test_a_registrar_slow_to_take_a_new_code_does_not_cost_another_code(tmp_path, world):
    class Slow(World):
        def find_order(self, domain: str) -> TransferOrder | None:
            data = self.state()
            corrected = data["calls"].get("correct_auth_code")
            lagging = corrected and self.now() < datetime.fromisoformat(data["order_at"]) + timedelta(minutes=30)
            return TransferOrder("7", "refused", "invalid auth code") if lagging else super().find_order(domain)

    slow = Slow(world.path)
    world.set(bad_codes=["X-first-c0de"])
    assert drive(make_move(tmp_path, slow), slow).done
    assert (world.calls()["correct_auth_code"], world.calls()["reset_auth_code"]) == (1, 1)


def test_codes_that_are_all_refused_end_with_a_human(move, world):
    world.set(bad_codes=["X-first-c0de", *(f"X-code-{n}-c0de" for n in range(9))])
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, "auth-code-wrong")
    assert world.calls()["order"] == 1


def test_a_refused_transfer_waits_for_a_human_and_is_ordered_again_only_then(move, world):
    world.set(refuse="objection of the holder")
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, "transfer-refused")
    world.set(refuse="")
    move.decide("retry", {})
    assert drive(move, world).done
    assert world.calls()["order"] == 2


def test_a_zone_edited_before_the_switch_is_exported_and_compared_again(move, world):
    drive(move, world, State.TTL_LOWERED)
    edited = [*RECORDS, {"rrset_name": "new", "rrset_type": "A", "rrset_ttl": 300, "rrset_values": ["192.0.2.11"]}]
    world.set(records=edited)
    assert drive(move, world).done
    assert any("new 300 A 192.0.2.11" in line for line in world.state()["served"])
    assert any("10800 A 192.0.2.10" in line for line in world.state()["served"]), "the TTL from before it was lowered"
    assert world.calls()["provision"] == 2
    assert [event.kind for event in move.store.read(DOMAIN)].count("drift") == 1
    assert_legal(move)


def test_a_zone_edited_after_the_switch_stops_before_the_transfer(move, world):
    drive(move, world, State.SETTLED)
    world.set(records=RECORDS[:1])
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, "zone-drifted")
    assert "order" not in world.calls()
    move.decide("waiver", {"subject": "zone-drifted", "reason": "reporté à la main"})
    assert drive(move, world).done


class Front:
    """Our web front: what it was given, and what it answers wrongly."""

    def __init__(self) -> None:
        self.given: list[Sequence[Redirection]] = []
        self.bad: list[str] = []

    def provision(self, _domain: str, redirections: Sequence[Redirection]) -> None:
        self.given.append(tuple(redirections))

    def remove(self, _domain: str) -> None:
        self.given.append(())

    def wrong(self, redirections: Sequence[Redirection]) -> list[str]:
        return self.bad if redirections == self.given[-1] else ["Le front répond encore comme avant."]


FETE = f"fete.{DOMAIN}"
PARKED = {"rrset_name": "fete", "rrset_type": "CNAME", "rrset_ttl": 300, "rrset_values": ["webredir.vip.gandi.net."]}
OURS = Options(web_addresses=("192.0.2.80",))


def leading(world: World, kind: str = "http301", url: str = "https://x.example/") -> None:
    world.set(records=[*RECORDS, PARKED], redirections=[{"host": FETE, "type": kind, "url": url}])


def test_redirections_are_made_with_the_zone_and_seen_to_work_before_the_switch(tmp_path, world):
    front = Front()
    move = make_move(tmp_path, world, web=front, options=OURS)
    leading(world)
    front.bad = [f"La redirection de {FETE} n'est pas en place."]
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, "redirections-unready")
    assert front.bad[0] in step.verdict.reason
    assert front.given == [(Redirection(FETE, "https://x.example/", 301),)]
    assert "set_nameservers" not in world.calls()
    front.bad = []
    assert drive(move, world, State.SETTLED).state == State.SETTLED
    front.bad = ["Elle ne marche plus."]
    move.decide("services-checked", {})
    assert drive(move, world).code == "redirections-unready"
    assert "set_lock" not in world.calls()
    front.bad = []
    assert drive(move, world).done


def test_a_redirection_that_changes_at_gandi_is_made_again(tmp_path, world):
    front = Front()
    move = make_move(tmp_path, world, web=front, options=OURS)
    leading(world)
    drive(move, world, State.TTL_LOWERED)
    leading(world, "http302", "https://y.example/")
    assert drive(move, world).done
    assert front.given[-1] == (Redirection(FETE, "https://y.example/", 302),)
    assert len(front.given) == 2


def test_redirections_that_nobody_can_look_at_stop_the_switch_unless_a_human_lifts_it(tmp_path, world):
    move = make_move(tmp_path, world, options=OURS)
    leading(world)
    assert drive(move, world).code == "redirections-unready"
    move.decide("waiver", {"subject": "redirections-unready", "reason": "regardées à la main"})
    assert drive(move, world).done


def test_a_frame_is_asked_about_and_becomes_what_the_member_agrees_to(tmp_path, world):
    front = Front()
    move = make_move(tmp_path, world, web=front, options=OURS)
    leading(world, "cloak")
    assert drive(move, world).code == "redirection-framed"
    assert front.given == []
    move.decide("redirection", {"host": FETE.upper()})
    assert drive(move, world).done
    assert front.given == [(Redirection(FETE, "https://x.example/", 302),)]


def test_taking_the_zone_back_takes_its_redirections_back(tmp_path, world):
    front = Front()
    move = make_move(tmp_path, world, web=front, options=OURS)
    leading(world)
    drive(move, world, State.PARITY_OK)
    move.rollback(State.AUDITED, "essai", apply=True)
    drive(move, world)
    assert front.given[-1] == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"differs": True}, "parity-failed"),
        ({"probe": False}, "probe-missing"),
        ({"failed": 3}, "probe-failed"),
        ({"mailboxes": ["a@asso.example"]}, "mail-not-copied"),
        ({"records": []}, "zone-empty"),
    ],
)
def test_what_is_wrong_blocks_with_its_name_and_no_transfer(move, world, change, code):
    world.set(**change)
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, code)
    assert not {"order", "set_lock"} & set(world.calls())


def test_mail_that_stays_at_gandi_moves_the_zone_and_forbids_the_transfer(move, world):
    move.decide("mail-mode", {"mode": "gandi"})
    step = drive(move, world)
    assert (step.state, step.code) == (State.SETTLED, "mail-at-gandi")
    assert not {"order", "set_lock"} & set(world.calls())


def test_copied_boxes_must_count_up(move, world):
    world.set(mailboxes=["a@asso.example"])
    assert drive(move, world).code == "mail-not-copied"
    with pytest.raises(RefusedError, match="copiez de nouveau"):
        move.decide("mail-copied", {"address": "A@asso.example", "before": 10, "after": 9})
    move.decide("mail-copied", {"address": "A@asso.example", "before": 10, "after": 10})
    assert drive(move, world).done


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        ("price", {"euros": "neuf"}, "n'est pas le prix"),
        ("price", {"euros": "nan"}, "n'est pas le prix"),
        ("consent", {"by": "Camille", "date": "hier", "payer": "asso"}, "n'est pas une date"),
        ("consent", {"by": "Camille", "date": "2999-01-01", "payer": "asso"}, "pas encore"),
        ("services-checked", {}, "trop tôt"),
        ("mail-copied", {"address": "a@asso.example", "before": "dix", "after": "10"}, "nombre de messages"),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused_and_not_kept(move, kind, data, says):
    move.advance(apply=True)
    before = list(move.store.read(DOMAIN))
    with pytest.raises(RefusedError, match=says):
        move.decide(kind, data)
    assert list(move.store.read(DOMAIN)) == before


def test_a_price_may_have_a_comma(move):
    move.decide("price", {"euros": "9,59"})
    assert move.memory().price == 9.59


@pytest.mark.parametrize("to", [State.CONSENTED, State.PARITY_OK, State.DS_REMOVED, State.SERVICES_OK])
def test_rollback_takes_back_last_things_first_and_resume_goes_on(move, world, to):
    world.set(ds=["12345 13 2 ab"], dnskeys=[{"id": "1", "keytag": 12345}], signed=True)
    drive(move, world, State.AUTHCODE_HELD)
    move.rollback(to, "le membre hésite", apply=True)
    step = drive(move, world)
    assert step.side == State.ROLLED_BACK
    data = world.state()
    assert data["locked"]
    assert (data["delegation"] == list(OLD)) == (to != State.SERVICES_OK)
    assert bool(data["ds"]) == (to in (State.CONSENTED, State.PARITY_OK))
    assert (data["served"] is None) == (to == State.CONSENTED)
    assert_legal(move)
    move.decide("resume", {})
    assert drive(move, world).done
    assert world.calls()["order"] == 1
    assert_legal(move)


def test_a_rollback_during_the_transfer_says_that_only_gandi_can_stop_it(move, world):
    drive(move, world, State.TRANSFER_PENDING)
    step = move.rollback(State.SETTLED, "trop tard ?", apply=True)
    assert (step.side, step.code) == (State.BLOCKED, "transfer-running")
    assert world.state()["delegation"] == list(NEW)


def test_two_volunteers_at_once_are_refused(tmp_path, move, world):
    other = make_move(tmp_path, world)
    with move.store.lock(DOMAIN, "Camille"), pytest.raises(RefusedError, match="Camille"):
        other.advance(apply=True)
    assert move.store.read(DOMAIN) == []


def lossy(world: World, action: str, *, landed: bool | None, times: int = 1) -> None:
    """Lose the answer of an action: after it landed when `landed` is None, before it when False."""
    left = [times]

    def fault(when: str, what: str) -> None:
        if what == action and left[0] and when == ("after" if landed is None else "before"):
            left[0] -= 1
            raise WorldError("no answer", retry=True, landed=landed)

    world.fault = fault


@pytest.mark.parametrize(
    "action", ["snapshot", "provision", "set_ttls", "set_nameservers", "set_lock", "order", "secure"]
)
@pytest.mark.parametrize("landed", [None, False])
def test_a_lost_answer_is_read_again_and_nothing_irreversible_is_repeated(move, world, action, landed):
    lossy(world, action, landed=landed)
    assert drive(move, world).done
    assert world.calls()["order"] == 1
    assert_legal(move)


def test_an_order_whose_answer_was_lost_is_waited_for_before_another_is_placed(world):
    hidden = [True]

    class Shy(World):
        def find_order(self, domain: str) -> TransferOrder | None:
            return None if hidden[0] else super().find_order(domain)

        def rdap(self) -> RdapFacts:
            return RdapFacts(DOMAIN, super().rdap().registrar, expires=START + timedelta(days=300))

    shy = Shy(world.path)
    lossy(shy, "order", landed=None)
    slow = make_move(world.path.parent, shy)
    drive(slow, shy, State.AUTHCODE_HELD)
    step = slow.run_until_blocked()
    while answer(slow, step):
        step = slow.run_until_blocked()
    step = slow.run_until_blocked()
    assert (step.side, step.code) == (State.WAITING, "order-unknown")
    hidden[0] = False
    assert slow.run_until_blocked().state == State.TRANSFER_PENDING
    assert world.calls()["order"] == 1


@pytest.mark.parametrize(
    ("says", "code"),
    [("HTTP 403: the token has expired", "token-expired"), ("HTTP 404: wrong organisation", "wrong-organisation")],
)
def test_a_door_that_is_shut_is_one_sentence_and_blocks(tmp_path, world, says, code):
    class Shut(GandiDoor):
        def domain(self, _name: str) -> DomainFacts:
            raise WorldError(says)

    step = make_move(tmp_path, world, losing=Shut(world)).run_until_blocked()
    assert (step.side, step.code, step.says) == (State.BLOCKED, code, says)


def test_a_busy_world_is_waited_for_longer_and_longer(tmp_path, world):
    class Busy(GandiDoor):
        def domain(self, _name: str) -> DomainFacts:
            raise WorldError("HTTP 429", retry=True)

    slow = make_move(tmp_path, world, losing=Busy(world))
    waits = [(slow.advance(apply=True).waiting_until or START) - START for _ in range(8)]
    assert [wait.total_seconds() for wait in waits] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_change_that_never_completes_calls_for_help(move, world):
    world.servers = lambda *_: []  # the new servers never answer
    step = drive(move, world)
    assert (step.side, step.code, step.state) == (State.BLOCKED, "never-completes", State.CONSENTED)
    assert world.calls()["provision"] == 3
    assert "set_ttls" not in world.calls()


def test_level_c_is_told_what_to_do_and_seen_when_it_is_done(tmp_path, world):
    class ByHand(GandiDoor):
        """A member who does what they are told one day later."""

        def __getattr__(self, name: str) -> Any:
            if name in ("snapshot", "set_ttls", "set_nameservers", "set_lock", "auth_code"):

                def tell(*_: object) -> None:
                    raise ByHandError("member", f"Faites « {name} » chez Gandi.")

                return tell
            return super().__getattr__(name)

    move = make_move(tmp_path, world, "C", losing=ByHand(world))
    clicks = {
        "set_ttls": lambda: world.set_ttls(DOMAIN, (), 300),
        "set_nameservers": lambda: world.set(delegation=list(NEW)),
        "set_lock": lambda: world.set(locked=False),
        "auth_code": lambda: move.vault.put(DOMAIN, "X-typed-c0de", None),
    }
    for _ in range(20):
        step = drive(move, world)
        if step.done:
            break
        assert (step.side, step.code, step.who) == (State.BLOCKED, "by-hand", "member"), step
        clicks.pop(step.says.split("«")[1].split("»")[0].strip())()
    assert step.done
    assert not clicks
    assert_legal(move)


def test_what_a_member_does_alone_is_taken_as_it_is_and_said(move, world):
    drive(move, world, State.AUDITED)
    world.set(delegation=list(NEW), served=["x"])
    step = move.run_until_blocked()
    assert step.state == State.NS_SWITCHED
    kinds = [event.kind for event in move.store.read(DOMAIN)]
    assert "overtaken" in kinds
    world.set(differs=True)
    step = drive(move, world)
    assert (step.side, step.code) == (State.BLOCKED, "parity-failed")
    assert not {"order", "set_lock"} & set(world.calls())
    world.set(differs=False)
    move.decide("retry", {})
    assert drive(move, world).done


def test_a_domain_gone_elsewhere_is_said(move, world):
    drive(move, world, State.SETTLED)
    world.set(registrar="Un Autre SA")
    step = move.run_until_blocked()
    assert step.blocked or step.code in ("gone-elsewhere", "wrong-organisation")
    assert not {"order", "set_lock"} & set(world.calls())


def test_the_clock_of_a_laptop_that_goes_back_stops_the_move(move, world):
    drive(move, world, State.PARITY_OK)
    world.set(now=(world.now() - timedelta(days=2)).isoformat())
    step = move.run_until_blocked()
    assert (step.side, step.code) == (State.BLOCKED, "clock-backwards")


def test_a_clock_that_runs_while_the_world_is_read_does_not_hold_the_switch(tmp_path):
    class Running(World):
        def now(self) -> datetime:
            self.set(now=(super().now() + timedelta(milliseconds=1)).isoformat())
            return super().now()

    world, store = Running(tmp_path / "world.json"), LocalStore(tmp_path / "events", durable=False)
    move = make_move(tmp_path, world, waves=Waves(store), store=store)
    drive(move, world, State.TTL_LOWERED)
    assert move.run_until_blocked(State.NS_SWITCHED).state == State.NS_SWITCHED


def test_waves_hold_the_switch_until_the_canary_has_settled(tmp_path, world):
    store = LocalStore(tmp_path / "events", durable=False)
    move = make_move(tmp_path, world, waves=Waves(store, Pace(), canary="canari.example"), store=store)
    step = drive(move, world, State.TTL_LOWERED)
    step = move.run_until_blocked()
    assert step.side == State.WAITING
    assert "set_nameservers" not in world.calls()
    alone = make_move(tmp_path, world, waves=Waves(store, Pace(), canary=DOMAIN), store=store)
    assert drive(alone, world).done


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("mail-mode", {"mode": "ailleurs"}),
        ("skip", {"step": "DS_REMOVED"}),
        ("waiver", {"subject": "www/A"}),
        ("rollback", {"to": "BLOCKED"}),
        ("dance", {}),
    ],
)
def test_decisions_that_make_no_sense_are_refused(move, kind, data):
    with pytest.raises(RefusedError):
        move.decide(kind, data)
    assert move.store.read(DOMAIN) == []


def test_content_hash_ignores_ttls_and_order_and_nothing_else(world):
    base = world.export(DOMAIN)
    world.set(ttl=300, records=RECORDS[::-1])
    assert content_hash(world.export(DOMAIN)) == content_hash(base)
    world.set(records=RECORDS[:1])
    assert content_hash(world.export(DOMAIN)) != content_hash(base)


def test_the_encrypted_vault_serves_as_a_vault():
    class Codes:
        kept: dict[str, AuthCode] = {}  # noqa: RUF012  one test's memory

        def put(self, domain: str, code: str, expires: datetime | None = None) -> None:
            self.kept[domain] = AuthCode(Secret(code), expires)

        def get(self, domain: str) -> AuthCode | None:
            return self.kept.get(domain)

    vault = CodeVault(Codes())
    assert vault.get(DOMAIN) is None
    vault.put(DOMAIN, "X-some-c0de", None)
    assert vault.get(DOMAIN) == "X-some-c0de"


def test_memory_of_nothing_is_the_beginning():
    assert remember([]).recorded == State.DISCOVERED
