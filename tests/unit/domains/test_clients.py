# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients against the simulated services: two readings of the same documents, which must agree."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from infini.domains.caller import CallError
from infini.domains.gandi import Gandi, is_livedns
from infini.domains.netim import Netim
from infini.domains.observed import TransferOrder
from infini.domains.ovh import Ovh
from infini.domains.ports import Gaining, Losing, Registry, WorldError
from infini.domains.rdap import Rdap, bootstrap_of
from infini.domains.reading import disagreement, from_livedns, from_text
from infini.domains.secrets import Secret
from infini.domains.simulator import netim as netim_face
from infini.domains.simulator import ovh as ovh_face
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.faults import HALTING, HEALING
from infini.domains.simulator.serve import TOKEN, Simulation
from infini.domains.simulator.world import World

NAME = "asso.test"
OURS = ("ns1.infini.example", "ns2.infini.example")
RECORDS: list[dict[str, Any]] = [
    {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.10"]},
    {"rrset_name": "@", "rrset_type": "MX", "rrset_ttl": 10800, "rrset_values": ["10 spool.mail.gandi.net."]},
    {"rrset_name": "@", "rrset_type": "TXT", "rrset_ttl": 10800, "rrset_values": ['"v=spf1 mx ?all"']},
    {"rrset_name": "WWW", "rrset_type": "CNAME", "rrset_ttl": 10800, "rrset_values": [f"{NAME}."]},
]


@pytest.fixture
def world() -> World:
    world = World(VirtualClock())
    world.add(
        NAME,
        RECORDS,
        signed=True,
        mailboxes=[{"address": f"bureau@{NAME}"}],
        forwards=[{"source": "info", "destinations": ["info@elsewhere.example"]}],
        redirections=[{"host": f"www.{NAME}", "type": "http301", "url": "https://elsewhere.example"}],
        hosts=[{"name": "ns1", "ips": ["192.0.2.53"]}],
    )
    return world


@pytest.fixture
def sim(world: World) -> Iterator[Simulation]:
    with Simulation(world) as sim:
        yield sim
        assert sim.journal.unknown() == [], "a call that no contract knows"
        assert sim.journal.violations == []
        assert sim.journal.deletes_on_records() == []
        assert sim.journal.rate() <= 5
        assert sim.journal.with_secrets(world.secrets()) == []


@pytest.fixture
def gandi(sim: Simulation) -> Iterator[Gandi]:
    client = Gandi(lambda: Secret(TOKEN), sim.world.clock, sim.gandi_url)
    yield client
    client.close()


@pytest.fixture
def ovh(sim: Simulation) -> Iterator[Ovh]:
    keys = (ovh_face.APPLICATION_KEY, ovh_face.APPLICATION_SECRET, ovh_face.CONSUMER_KEY)
    client = Ovh(*keys, sim.world.clock, sim.ovh_url)
    yield client
    client.close()


@pytest.fixture
def netim(sim: Simulation) -> Iterator[Netim]:
    client = Netim(netim_face.LOGIN, netim_face.PASSWORD, sim.world.clock, sim.netim_url)
    yield client
    client.close()


@pytest.fixture(params=["ovh", "netim"])
def gaining(request: pytest.FixtureRequest) -> Gaining:
    client: Gaining = request.getfixturevalue(request.param)
    return client


@pytest.fixture
def rdap(sim: Simulation) -> Iterator[Rdap]:
    client = Rdap(sim.world.clock, base_url=sim.rdap_url)
    yield client
    client.close()


def pass_days(sim: Simulation, days: float) -> None:
    sim.world.clock.advance(timedelta(days=days))


def unlocked(sim: Simulation, gandi: Gandi) -> str:
    """Unlock, and return the auth code."""
    gandi.set_lock(NAME, False)
    pass_days(sim, 4)
    code = gandi.auth_code(NAME)
    assert code
    return code


def test_the_clients_are_what_the_move_asks_for(gandi: Gandi, ovh: Ovh, netim: Netim, rdap: Rdap) -> None:
    def takes(_losing: Losing, _ovh: Gaining, _netim: Gaining, _registry: Registry) -> None:
        """Only the types matter: mypy compares the clients with the ports."""

    takes(gandi, ovh, netim, rdap)


def test_an_export_is_whole(gandi: Gandi, world: World) -> None:
    export = gandi.export(NAME)
    zone = from_livedns(NAME, export.records)
    assert zone == from_livedns(NAME, RECORDS)
    assert disagreement(zone, from_text(NAME, export.text)) == []
    assert export.mailboxes == (f"bureau@{NAME}",)
    assert [forward["source"] for forward in export.forwards] == ["info"]
    assert export.redirections[0]["url"] == "https://elsewhere.example"
    assert export.glue[0]["name"] == "ns1"
    assert len(export.dnskeys) == 1
    world.set_rrset(NAME, "@", "A", 300)
    pass_a_minute(world)
    assert gandi.export(NAME).sha256 == export.sha256, "a TTL is no drift"
    world.set_rrset(NAME, "@", "A", 300, ["192.0.2.99"])
    pass_a_minute(world)
    assert gandi.export(NAME).sha256 != export.sha256


def pass_a_minute(world: World) -> None:
    world.clock.advance(timedelta(minutes=1))


def test_the_inventory(gandi: Gandi, world: World) -> None:
    for number in range(230):
        world.add(f"d{number:03}.test")
    world.add("not-ours.test", organisation="member")
    world.domain("d007.test").nameservers = ["ns1.elsewhere.example"]
    found = gandi.domains()
    assert len(found) == 231
    assert found[0] == gandi_short(gandi)
    assert all(facts.registrar_lock for facts in found)
    assert [facts.name for facts in found if not is_livedns(facts)] == ["d007.test"]


def gandi_short(gandi: Gandi) -> object:
    """Return what the list says of the first domain: less than its own page does."""
    return replace(gandi.domain(NAME), nameservers=(), services=("gandilivedns",))


def test_every_fault_that_heals_heals(gandi: Gandi, sim: Simulation, rdap: Rdap) -> None:
    sim.world.faults.at_random(0.3, [kind for kind in HEALING if kind != "page-change"], most=2)
    export = gandi.export(NAME)
    assert export.records
    assert rdap.domain(NAME).registrar == "GANDI SAS"
    assert sum(sim.world.faults.struck.values()) >= 3, "something did go wrong"
    assert from_livedns(NAME, export.records) == from_livedns(NAME, RECORDS)


@pytest.mark.parametrize("times", [1, 2])
def test_a_record_added_between_two_pages(gandi: Gandi, sim: Simulation, world: World, times: int) -> None:
    world.set_records(
        NAME,
        [
            {"rrset_name": f"n{number}", "rrset_type": "A", "rrset_ttl": 300, "rrset_values": ["192.0.2.1"]}
            for number in range(250)
        ],
    )
    sim.world.faults.add("page-change", face="gandi", times=times)
    export = gandi.export(NAME)
    assert sim.world.faults.struck["page-change"] == times
    assert len({entry["rrset_name"] for entry in export.records}) == len(export.records) == 250 + times


@pytest.mark.parametrize("kind", HALTING)
def test_a_token_that_does_not_do_stops_at_once(gandi: Gandi, sim: Simulation, kind: str) -> None:
    sim.world.faults.add(kind, face="gandi", times=None)
    with pytest.raises(CallError) as caught:
        gandi.export(NAME)
    assert len(sim.journal.asked) == 1
    assert not caught.value.retry
    assert TOKEN not in str(caught.value)


def test_an_expired_token(sim: Simulation, world: World) -> None:
    old = world.add_token("sim-pat-old", expires=world.now() + timedelta(days=1))
    client = Gandi(lambda: old, world.clock, sim.gandi_url)
    assert client.domain(NAME).name == NAME
    pass_days(sim, 2)
    with pytest.raises(CallError) as caught:
        client.domain(NAME)
    assert caught.value.code == "token-expired"
    client.close()


def test_another_organisations_token(sim: Simulation, world: World) -> None:
    other = world.add_token("sim-pat-other", "other")
    client = Gandi(lambda: other, world.clock, sim.gandi_url)
    assert client.domains() == []
    with pytest.raises(CallError) as caught:
        client.export(NAME)
    assert caught.value.code in ("", "wrong-organisation")
    with pytest.raises(CallError) as caught:
        client.domain(NAME)
    assert caught.value.code == "wrong-organisation"
    client.close()


def test_a_domain_that_nobody_has(gandi: Gandi, rdap: Rdap) -> None:
    with pytest.raises(CallError) as caught:
        gandi.domain("nobody.test")
    assert caught.value.code == "wrong-organisation"
    with pytest.raises(CallError, match=r"knows no domain nobody\.test"):
        rdap.domain("nobody.test")


def test_ttls_are_lowered(gandi: Gandi, sim: Simulation, world: World) -> None:
    zone = from_livedns(NAME, gandi.export(NAME).records)
    gandi.snapshot(NAME, "before")
    gandi.set_ttls(NAME, list(zone.rrsets.values()), 300)
    gandi.set_ttls(NAME, list(zone.rrsets.values()), 300)
    assert {record["rrset_ttl"] for record in world.domain(NAME).records} == {300}
    assert [record["rrset_name"] for record in world.domain(NAME).records] == ["@", "@", "@", "WWW"]
    assert len([asked for asked in sim.journal.asked if asked.method == "PATCH"]) == 4
    assert sim.journal.writes_before_snapshot() == []


@pytest.mark.parametrize("kind", ["lost-answer", "502-html", "truncated"])
@pytest.mark.parametrize(
    ("change", "method"),
    [
        (lambda gandi: gandi.set_nameservers(NAME, OURS), "PUT"),
        (lambda gandi: gandi.remove_dnskeys(NAME), "DELETE"),
        (lambda gandi: gandi.set_lock(NAME, False), "PATCH"),
        (lambda gandi: gandi.snapshot(NAME, "before"), "POST"),
    ],
)
def test_a_change_whose_answer_is_lost(
    gandi: Gandi, sim: Simulation, kind: str, change: Callable[[Gandi], object], method: str
) -> None:
    sim.world.faults.add(kind, face="gandi", method=method)
    with pytest.raises(CallError) as caught:
        change(gandi)
    assert caught.value.landed is None
    assert caught.value.retry
    pass_days(sim, 4)
    change(gandi)
    changes = [asked for asked in sim.journal.asked if asked.method == method]
    assert len(changes) == 1, "what landed is not asked for again"


def test_name_servers_there_and_back(gandi: Gandi, sim: Simulation, world: World, rdap: Rdap) -> None:
    before = rdap.domain(NAME).nameservers
    gandi.set_nameservers(NAME, OURS)
    pass_days(sim, 1)
    assert rdap.domain(NAME).nameservers == OURS == gandi.domain(NAME).nameservers
    gandi.restore_nameservers(NAME)
    pass_days(sim, 1)
    assert rdap.domain(NAME).nameservers == before
    assert world.registration(NAME).nameservers == before


def test_keys_there_and_back(gandi: Gandi, sim: Simulation, world: World) -> None:
    keys = gandi.export(NAME).dnskeys
    ds = world.ds(NAME)
    assert ds
    gandi.remove_dnskeys(NAME)
    pass_days(sim, 1)
    assert world.ds(NAME) == frozenset()
    assert world.old_signed(NAME), "the zone stays signed"
    gandi.restore_dnskeys(NAME, [dict(key) for key in keys])
    gandi.restore_dnskeys(NAME, [])
    pass_days(sim, 1)
    assert world.ds(NAME) == ds


def test_a_snapshot_is_made_once(gandi: Gandi, world: World) -> None:
    assert gandi.snapshot(NAME, "before") == gandi.snapshot(NAME, "before")
    assert len(world.domain(NAME).snapshots) == 1


def test_the_code_comes_when_the_lock_is_off(gandi: Gandi, sim: Simulation, rdap: Rdap) -> None:
    assert gandi.auth_code(NAME) is None
    assert "client transfer prohibited" in rdap.domain(NAME).statuses
    code = unlocked(sim, gandi)
    facts = gandi.domain(NAME)
    assert facts.auth_code_available
    assert facts.auth_code_expires is not None
    assert not facts.registrar_lock
    assert "client transfer prohibited" not in rdap.domain(NAME).statuses
    gandi.reset_auth_code(NAME)
    assert gandi.auth_code(NAME) is None
    pass_days(sim, 1)
    assert gandi.auth_code(NAME) not in (None, code)
    gandi.set_lock(NAME, True)
    pass_days(sim, 1)
    assert gandi.domain(NAME).registrar_lock


def prepared(sim: Simulation, gandi: Gandi) -> str:
    """Bring the domain to where a transfer may be ordered, and return its auth code."""
    gandi.remove_dnskeys(NAME)
    pass_days(sim, 1)
    sim.world.publish(from_livedns(NAME, RECORDS), OURS)
    gandi.set_nameservers(NAME, OURS)
    return unlocked(sim, gandi)


def test_a_transfer(gandi: Gandi, gaining: Gaining, rdap: Rdap, sim: Simulation, world: World) -> None:
    code = prepared(sim, gandi)
    quote = gaining.quote(NAME, code, OURS)
    assert quote.problems == ()
    assert quote.price is not None
    assert 5 < quote.price < 20
    assert gaining.find_order(NAME) is None, "a quote orders nothing"
    order = gaining.order(NAME, code, OURS)
    assert order.stage == "pending"
    pass_days(sim, 0.1)
    assert "pending transfer" in rdap.domain(NAME).statuses
    found = gaining.find_order(NAME)
    assert found is not None
    assert found.stage == "pending"
    assert gaining.order(NAME, code, OURS).stage == "pending"
    pass_days(sim, 6)
    found = gaining.find_order(NAME)
    assert found is not None
    assert found.stage == "done"
    assert gaining.order(NAME, code, OURS).stage == "done"
    assert len(world.orders) == 1
    facts = rdap.domain(NAME)
    assert facts.registrar != "GANDI SAS"
    assert facts.nameservers == OURS
    assert facts.transferred is not None
    gaining.secure(NAME)
    gaining.secure(NAME)
    assert world.registrar_settings[NAME] == {"locked": True, "auto_renew": True}
    assert "client transfer prohibited" in rdap.domain(NAME).statuses
    with pytest.raises(CallError) as caught:
        gandi.domain(NAME)
    assert caught.value.status == 404, "it has left"


@pytest.mark.parametrize("kind", ["lost-answer", "502-html", "truncated"])
def test_an_order_whose_answer_is_lost_is_found(
    gandi: Gandi, gaining: Gaining, sim: Simulation, world: World, kind: str
) -> None:
    code = prepared(sim, gandi)
    for path in ("*/checkout", "*/transfer/"):
        sim.world.faults.add(kind, method="POST", path=path)
    with pytest.raises(WorldError) as caught:
        gaining.order(NAME, code, OURS)
    assert caught.value.landed is None
    assert code not in str(caught.value)
    assert gaining.order(NAME, code, OURS).stage == "pending"
    assert len(world.orders) == 1


def test_a_wrong_code_is_corrected(gandi: Gandi, gaining: Gaining, sim: Simulation, world: World) -> None:
    code = prepared(sim, gandi)
    gaining.order(NAME, Secret("not-the-code"), OURS)
    pass_days(sim, 0.1)
    refused = gaining.find_order(NAME)
    assert refused is not None
    assert refused.stage == "refused"
    assert refused.reason.startswith("auth-code-wrong: ")
    gaining.correct_auth_code(refused, code)
    pass_days(sim, 6)
    found = gaining.find_order(NAME)
    assert found is not None
    assert found.stage == "done"
    assert world.registration(NAME).nameservers == OURS


def test_a_registrar_that_cannot_take_it(ovh: Ovh, world: World) -> None:
    assert "no ordinary transfer" in ovh.quote("nobody.test", Secret("x-code"), OURS).problems[0]
    assert world.orders == []


def test_keys_that_ovh_does_not_take(sim: Simulation, world: World) -> None:
    client = Ovh("another", "secret-of-none", "consumer-of-none", world.clock, sim.ovh_url)
    with pytest.raises(CallError, match="make a new consumer key") as caught:
        client.find_order(NAME)
    assert "of-none" not in str(caught.value)
    client.close()


def test_a_login_that_netim_does_not_take(sim: Simulation, world: World) -> None:
    client = Netim("NOBODY", "secret-of-none", world.clock, sim.netim_url)
    with pytest.raises(CallError, match="look at the login") as caught:
        client.find_order(NAME)
    assert "of-none" not in str(caught.value)
    client.close()


def test_netims_sessions_are_closed(netim: Netim, sim: Simulation) -> None:
    assert netim.find_order(NAME) is None
    assert netim.quote(NAME, Secret("x-code"), OURS).price == netim_face.PRICE
    assert sim.netim.sessions == {}


def test_rdap_finds_its_server(sim: Simulation, world: World) -> None:
    bootstrap = bootstrap_of(httpx.get(f"{sim.rdap_url}/dns.json", trust_env=False).json())
    client = Rdap(world.clock, bootstrap)
    assert client.domain(NAME.upper()).registrar == "GANDI SAS"
    client.close()


def test_nothing_secret_is_logged(
    gandi: Gandi, ovh: Ovh, sim: Simulation, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        code = prepared(sim, gandi)
        order: TransferOrder = ovh.order(NAME, code, OURS)
    assert caplog.text, "httpx logs its calls"
    shown = caplog.text + repr((order, gandi, ovh, code))
    for secret in (*world.secrets(), ovh_face.APPLICATION_SECRET, ovh_face.CONSUMER_KEY):
        assert secret not in shown
