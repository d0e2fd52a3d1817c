# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Level C: what a member pasted is read like an export, and every change becomes a sentence for a human."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infini.domains import reading
from infini.domains.by_hand import ANSWERS as ANSWERS_FILE
from infini.domains.by_hand import ZONE, HandGaining, HandLosing
from infini.domains.events import LocalStore
from infini.domains.gandi import checksum
from infini.domains.observed import RdapFacts, TransferOrder
from infini.domains.ports import ByHandError
from infini.domains.secrets import AuthCodes, Secret
from infini.domains.simulator.clock import VirtualClock
from infini.domains.zone import Rrset, Unreadable, Zone
from infini.errors import RefusedError
from infini.phrase import said

NAME = "amain.test"
CODE = "auth-Code-99"
TEXT = "@ 10800 IN A 192.0.2.10\n@ 10800 IN ALIAS pages.example.\n"
ANSWERS: dict[str, Any] = {
    "expires": "2027-05-06",
    "created": "2015-01-02",
    "nameservers": ["NS-1-A.gandi.net."],
    "mailboxes": ["Bureau@amain.test"],
    "redirections": [{"host": "www.amain.test", "type": "http301", "url": "https://x.example"}],
}


class Codes(AuthCodes):
    """Auth codes in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def get(self, domain: str) -> Any:
        return self.kept.get(domain)


class Registry:
    """A registry that says one thing."""

    def __init__(self, facts: RdapFacts) -> None:
        self.facts = facts

    def domain(self, name: str) -> RdapFacts:
        assert name == self.facts.domain
        return self.facts


@pytest.fixture
def losing(tmp_path: Path) -> HandLosing:
    return HandLosing(LocalStore(tmp_path / "hand"), VirtualClock())


def test_what_is_not_pasted_is_not_known(losing: HandLosing) -> None:
    assert losing.domains() == []
    for read in (losing.domain, losing.export):
        with pytest.raises(ByHandError) as caught:
            read(NAME)
        assert caught.value.who == "member"
        assert "affichez la zone en texte, copiez tout" in said(caught.value.instructions)


def test_what_a_member_says_is_read(losing: HandLosing) -> None:
    losing.keep("Amain.TEST.", TEXT, ANSWERS)
    (facts,) = losing.domains()
    assert facts.name == NAME
    assert facts.expires == datetime(2027, 5, 6, tzinfo=UTC)
    assert facts.created == datetime(2015, 1, 2, tzinfo=UTC)
    assert facts.nameservers == ("ns-1-a.gandi.net",)
    assert facts.registrar_lock
    assert not facts.auth_code_available


def test_the_paste_is_an_export(losing: HandLosing, monkeypatch: pytest.MonkeyPatch) -> None:
    readable = Rrset("@", "A", 10800, ("192.0.2.10",))
    broken = Unreadable("@", "ALIAS", ("pages.example.",), "no such type")
    monkeypatch.setattr(reading, "from_text", lambda name, text: Zone.of(name, [readable], [broken]) if text else None)
    losing.keep(NAME, TEXT, ANSWERS)
    pasted = VirtualClock().now()
    losing._clock.sleep(86400)
    export = losing.export(NAME)
    assert export.at == pasted, "an old paste does not look new"
    assert export.text == TEXT
    assert export.records == (
        {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.10"]},
        {"rrset_name": "@", "rrset_type": "ALIAS", "rrset_values": ["pages.example."]},
    ), "what cannot be read is still counted"
    assert export.mailboxes == ("bureau@amain.test",)
    assert export.sha256 == checksum(export.records, export.redirections, export.glue)
    assert losing.snapshot(NAME, "before").startswith("paste-")


def test_the_real_reader_reads_the_paste(losing: HandLosing) -> None:
    losing.keep(NAME, TEXT, ANSWERS)
    export = losing.export(NAME)
    assert {(entry["rrset_name"], entry["rrset_type"]) for entry in export.records} == {("@", "A"), ("@", "ALIAS")}
    again = reading.from_livedns(NAME, export.records)
    assert set(again.rrsets) == {("@", "A")}
    assert [entry.type for entry in again.unreadable] == ["ALIAS"]


def test_the_registry_knows_better(tmp_path: Path) -> None:
    open_ = RdapFacts(NAME, "Gandi", ("active",), ("ns1.infini.example",), datetime(2028, 1, 1, tzinfo=UTC))
    losing = HandLosing(LocalStore(tmp_path), VirtualClock(), Registry(open_))
    losing.keep(NAME, TEXT, ANSWERS)
    facts = losing.domain(NAME)
    assert facts.nameservers == ("ns1.infini.example",)
    assert facts.expires.year == 2028
    assert not facts.registrar_lock
    locked = RdapFacts(NAME, "Gandi", ("client transfer prohibited",))
    facts = HandLosing(LocalStore(tmp_path), VirtualClock(), Registry(locked)).domain(NAME)
    assert facts.registrar_lock
    assert facts.nameservers == ("ns-1-a.gandi.net",), "where the registry is silent the member's word stands"


def test_a_code_that_the_member_sent(tmp_path: Path) -> None:
    from infini.domains.secrets import AuthCode

    codes = Codes()
    losing = HandLosing(LocalStore(tmp_path), VirtualClock(), codes=codes)
    losing.keep(NAME, TEXT, ANSWERS)
    with pytest.raises(ByHandError) as caught:
        losing.auth_code(NAME)
    assert caught.value.who == "member"
    assert "de vive voix" in said(caught.value.instructions)
    until = VirtualClock().now() + timedelta(days=20)
    codes.kept[NAME] = AuthCode(Secret(CODE), until)
    assert losing.auth_code(NAME) == CODE
    assert CODE not in repr(losing.auth_code(NAME))
    facts = losing.domain(NAME)
    assert facts.auth_code_available
    assert facts.auth_code_expires == until


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"expires": None}, "lack expires"),
        ({"expires": "soon"}, "no date"),
        ({"locked": "yes"}, "neither true nor false"),
        ({"mailboxes": "bureau@amain.test"}, "no list of texts"),
        ({"redirections": ["www"]}, "no list of names and values"),
        ({"auth_code": CODE}, "hold auth_code, which nobody asked for"),
    ],
)
def test_answers_that_do_not_do(losing: HandLosing, change: dict[str, Any], says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        losing.keep(NAME, TEXT, ANSWERS | change)
    assert CODE not in str(caught.value)
    assert losing.store.kept(NAME, ANSWERS_FILE) is None
    assert losing.store.kept(NAME, ZONE) is None


def test_an_empty_paste_is_refused(losing: HandLosing) -> None:
    with pytest.raises(RefusedError, match="is empty"):
        losing.keep(NAME, " \n", ANSWERS)


def test_answers_spoilt_by_hand_are_refused(losing: HandLosing) -> None:
    losing.keep(NAME, TEXT, ANSWERS)
    losing.store.keep(NAME, ANSWERS_FILE, "expires: [")
    with pytest.raises(RefusedError, match="cannot be read"):
        losing.domain(NAME)


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        (lambda d: d.set_ttls(NAME, [Rrset("www", "A", 10800, ("192.0.2.1",))], 300), ["300 secondes", "www A"]),
        (lambda d: d.set_nameservers(NAME, ["ns1.infini.example."]), ["ns1.infini.example", "Serveurs de noms"]),
        (lambda d: d.restore_nameservers(NAME), ["LiveDNS"]),
        (lambda d: d.remove_dnskeys(NAME), ["DNSSEC", "supprimez"]),
        (lambda d: d.restore_dnskeys(NAME, [{"keytag": 4242}]), ["4242"]),
        (lambda d: d.set_lock(NAME, False), ["désactivez", "72 heures"]),
        (lambda d: d.set_lock(NAME, True), [" activez"]),
        (lambda d: d.reset_auth_code(NAME), ["code de transfert"]),
    ],
)
def test_every_change_is_said_to_the_member(
    losing: HandLosing, change: Callable[[HandLosing], None], mentions: list[str]
) -> None:
    with pytest.raises(ByHandError) as caught:
        change(losing)
    assert caught.value.who == "member"
    told = said(caught.value.instructions)
    assert NAME in told
    for mention in mentions:
        assert mention in told


def test_a_registrar_by_hand() -> None:
    gaining = HandGaining(VirtualClock())
    assert gaining.quote(NAME, Secret(CODE), ["ns1.infini.example"]).price is None
    assert gaining.find_order(NAME) is None
    for act in (
        lambda: gaining.order(NAME, Secret(CODE), ["ns1.infini.example."]),
        lambda: gaining.correct_auth_code(TransferOrder("x", "refused"), Secret(CODE)),
        lambda: gaining.secure(NAME),
    ):
        with pytest.raises(ByHandError) as caught:
            act()
        assert caught.value.who == "volunteer"
        assert CODE not in caught.value.instructions
    with pytest.raises(ByHandError, match=r"ns1\.infini\.example"):
        gaining.order(NAME, Secret(CODE), ["ns1.infini.example."])
