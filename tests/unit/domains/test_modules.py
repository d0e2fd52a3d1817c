# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible modules that open onto `infini.domains`, run as Ansible runs them: arguments in, JSON out."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from datetime import UTC, datetime

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.vault import VaultLib, VaultSecret

from infini import ROOT
from infini.domains import doors, secrets
from infini.domains.move import Step
from infini.domains.observed import Delegation, Difference, ParentAnswer, Parity
from infini.domains.ports import ByHandError, WorldError
from infini.domains.simulator.clock import VirtualClock
from infini.domains.simulator.serve import TOKEN, Simulation
from infini.domains.simulator.world import World
from infini.domains.states import State, Verdict
from infini.errors import RefusedError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAME = "velo.example"
RECORDS = [
    {"rrset_name": "@", "rrset_type": "A", "rrset_ttl": 10800, "rrset_values": ["192.0.2.1"]},
    {"rrset_name": "www", "rrset_type": "CNAME", "rrset_ttl": 10800, "rrset_values": [f"{NAME}."]},
]
READERS = [
    "gandi_domains_info",
    "gandi_zone_export",
    "dns_zone_parity",
    "dns_delegation_info",
    "rdap_domain_info",
]
MODULES = [*READERS, "domain_transfers"]


def run(module, capsys, check=False, **arguments):
    """Run a module and return what it answers."""
    given = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(given), pytest.raises(SystemExit):
        importlib.import_module(module).main()
    out, err = capsys.readouterr()
    assert not err
    return json.loads(out)


@pytest.fixture
def simulation(monkeypatch):
    world = World(VirtualClock(NOW))
    monkeypatch.setattr(doors, "WallClock", lambda: world.clock)
    world.add(NAME, RECORDS)
    world.add("bourg.example", RECORDS)
    with Simulation(world) as running:
        yield running


@pytest.fixture
def vault(tmp_path, monkeypatch):
    """A vault that holds the simulator's token, and the password that opens it."""
    password = tmp_path / "password"
    password.write_text("the password of the tests\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    locked = VaultLib([("default", VaultSecret(b"the password of the tests"))])
    path = tmp_path / "vault.yml"
    path.write_bytes(locked.encrypt(f"vault_gandi_token: {TOKEN}\nvault_old_token: expired\n"))
    return path


@pytest.fixture
def gandi(simulation, vault):
    return {"url": simulation.gandi_url, "sharing_id": "infini", "vault": str(vault)}


# --- Gandi ---


def test_domains_are_listed_with_their_dates_and_locks(gandi, capsys):
    answer = run("gandi_domains_info", capsys, **gandi)
    assert answer["changed"] is False
    assert [domain["name"] for domain in answer["domains"]] == ["bourg.example", NAME]
    velo = answer["domains"][1]
    assert datetime.fromisoformat(velo["expires"]).tzinfo
    assert velo["registrar_lock"] is True


def test_some_domains_are_read_by_name(gandi, capsys):
    answer = run("gandi_domains_info", capsys, names=[NAME], **gandi)
    assert [domain["name"] for domain in answer["domains"]] == [NAME]
    assert len(answer["domains"][0]["nameservers"]) > 1


def test_a_domain_that_the_token_does_not_reach_is_a_sentence(gandi, capsys):
    answer = run("gandi_domains_info", capsys, names=["other.example"], **gandi)
    assert answer["failed"]
    assert "other.example" in answer["msg"]


def test_a_refused_token_is_a_sentence_without_it(gandi, capsys):
    answer = run("gandi_domains_info", capsys, variable="vault_old_token", **gandi)
    assert answer["failed"]
    assert "token" in answer["msg"]
    assert "expired" not in json.dumps(answer["invocation"])


def test_a_token_that_the_vault_does_not_have_is_a_sentence(gandi, capsys):
    answer = run("gandi_domains_info", capsys, variable="vault_nothing", **gandi)
    assert answer["failed"]
    assert "vault_nothing" in answer["msg"]
    assert "\n" not in answer["msg"]


def test_an_export_is_returned_and_kept_once(gandi, tmp_path, capsys):
    exports = tmp_path / "exports"
    exports.mkdir()
    given = {"names": [NAME], "dest": str(exports), **gandi}
    shown = run("gandi_zone_export", capsys, check=True, **given)
    assert shown["changed"]
    assert shown["kept"] == [f"{exports}/{NAME}.json", f"{exports}/{NAME}.txt"]
    assert "192.0.2.1" in shown["diff"][0]["after"]
    assert not list(exports.iterdir())

    first, second = (run("gandi_zone_export", capsys, **given) for _ in range(2))
    assert first["exports"][0]["sha256"] == second["exports"][0]["sha256"]
    assert (first["changed"], second["changed"]) == (True, False)
    assert second["kept"] == second["diff"] == []
    kept = json.loads((exports / f"{NAME}.json").read_text())
    assert {record["rrset_name"] for record in kept["records"]} == {"@", "www"}
    assert "192.0.2.1" in (exports / f"{NAME}.txt").read_text()


def test_a_change_at_gandi_is_a_change_of_what_is_kept(gandi, simulation, tmp_path, capsys):
    given = {"names": [NAME], "dest": str(tmp_path), **gandi}
    run("gandi_zone_export", capsys, **given)
    simulation.world.set_records(NAME, [{**RECORDS[0], "rrset_values": ["192.0.2.99"]}])
    answer = run("gandi_zone_export", capsys, **given)
    [diff] = [diff for diff in answer["diff"] if diff["after_header"].endswith(".txt")]
    assert ("192.0.2.1" in diff["before"], "192.0.2.99" in diff["after"]) == (True, True)


def test_an_export_without_a_folder_writes_nothing(gandi, capsys):
    answer = run("gandi_zone_export", capsys, names=[NAME], **gandi)
    assert (answer["changed"], answer["kept"]) == (False, [])
    assert answer["exports"][0]["domain"] == NAME


def test_a_folder_that_is_not_there_is_a_sentence(gandi, capsys):
    answer = run("gandi_zone_export", capsys, names=[NAME], dest="/nowhere", **gandi)
    assert "/nowhere" in answer["msg"]


def test_reading_changes_nothing_at_gandi_and_tells_no_secret(gandi, simulation, tmp_path, capsys):
    said = [
        run("gandi_domains_info", capsys, **gandi),
        run("gandi_zone_export", capsys, names=[NAME], dest=str(tmp_path), **gandi),
    ]
    assert {entry.method for entry in simulation.journal.asked} == {"GET"}
    kept = "".join(path.read_text() for path in tmp_path.glob(f"{NAME}.*"))
    for secret in (TOKEN, *simulation.world.secrets()):
        assert secret not in json.dumps(said) + kept


# --- the registry and the DNS ---


def test_the_registry_is_asked(simulation, capsys):
    answer = run("rdap_domain_info", capsys, names=[NAME], url=simulation.rdap_url)
    assert answer["changed"] is False
    assert answer["domains"][0]["registrar"] == "GANDI SAS"
    assert "client transfer prohibited" in answer["domains"][0]["statuses"]


def test_the_registry_is_found_in_iana_s_list(simulation, tmp_path, capsys):
    bootstrap = tmp_path / "dns.json"
    bootstrap.write_text(json.dumps({"services": [[["example"], [simulation.rdap_url]]]}))
    answer = run("rdap_domain_info", capsys, names=[NAME], bootstrap=str(bootstrap))
    assert answer["domains"][0]["domain"] == NAME


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"services": 1}'])
def test_another_file_than_iana_s_list_is_a_sentence(content, tmp_path, capsys):
    (tmp_path / "dns.json").write_text(content)
    answer = run("rdap_domain_info", capsys, names=[NAME], bootstrap=str(tmp_path / "dns.json"))
    assert answer["failed"]
    assert "data.iana.org" in answer["msg"]


def test_a_domain_that_the_registry_does_not_know_is_a_sentence(simulation, capsys):
    answer = run("rdap_domain_info", capsys, names=["nobody.example"], url=simulation.rdap_url)
    assert "nobody.example" in answer["msg"]
    assert answer["retry"] is False


PARENTS = (
    ParentAnswer("a.nic.example", frozenset({"ns2.infini.test", "ns1.infini.test"}), ns_ttl=3600),
    ParentAnswer("b.nic.example", error="no answer"),
)


class FakeDns:
    """Stands where the DNS is asked; notes what it was asked with."""

    asked: list[object]

    def __init__(self, resolvers, **more):
        type(self).asked = [list(resolvers), more]

    def delegation(self, name):
        return Delegation(name, PARENTS)

    def parity(self, old, new, old_servers, new_servers, sha256):
        self.asked.append((old, new, old_servers, new_servers, sha256))
        lost = Difference("www", "CNAME", "ns1.infini.test", "velo.example.", "NXDOMAIN")
        return Parity(NAME, NOW, sha256, 424, 423, unexpected=(lost,), canary_caught=True)


def test_a_delegation_says_who_did_not_answer(monkeypatch, capsys):
    module = importlib.import_module("dns_delegation_info")
    monkeypatch.setattr(module, "LiveDns", FakeDns)
    answer = run("dns_delegation_info", capsys, names=[NAME], resolvers=["192.0.2.53"])
    [found] = answer["delegations"]
    assert FakeDns.asked[0] == ["192.0.2.53"]
    assert found["nameservers"] == ["ns1.infini.test", "ns2.infini.test"]
    assert (found["complete"], found["agreed"], found["ns_ttl"]) == (False, False, 3600)
    assert found["answers"][1]["error"] == "no answer"


def test_a_difference_is_told_and_is_no_failure_of_the_task(monkeypatch, tmp_path, capsys):
    module = importlib.import_module("dns_zone_parity")
    monkeypatch.setattr(module, "LiveDns", FakeDns)
    (tmp_path / "old.json").write_text(json.dumps({"records": RECORDS, "sha256": "f00"}))
    (tmp_path / "new.zone").write_text("@ 300 A 192.0.2.2\n")
    answer = run(
        "dns_zone_parity",
        capsys,
        name=NAME,
        old=str(tmp_path / "old.json"),
        new=str(tmp_path / "new.zone"),
        old_servers=["ns-1-a.gandi.net"],
        new_servers=["ns1.infini.test"],
        resolvers=["192.0.2.53"],
        rate=5,
    )
    [resolvers, more, (old, new, old_servers, new_servers, sha256)] = FakeDns.asked
    assert (resolvers, more) == (["192.0.2.53"], {"rate": 5.0})
    assert (set(old.rrsets), set(new.rrsets)) == ({("@", "A"), ("www", "CNAME")}, {("@", "A")})
    assert (old_servers, new_servers, sha256) == (["ns-1-a.gandi.net"], ["ns1.infini.test"], "f00")
    assert not answer.get("failed")
    assert answer["ok"] is False
    assert answer["parity"]["unexpected"][0]["name"] == "www"


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"records": []}'])
def test_another_file_than_an_export_is_a_sentence(content, tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(content)
    answer = run("dns_zone_parity", capsys, name=NAME, old=str(path), old_servers=["a"], new_servers=["b"])
    assert "gandi_zone_export" in answer["msg"]


def test_a_zone_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RefusedError, match=r"velo\.example cannot be read .*No such file"):
        doors.zone_file(NAME, tmp_path / "nothing.zone")


# --- what they share ---


def test_data_is_plain_and_always_in_the_same_order():
    found = doors.plain(Delegation(NAME, PARENTS))
    assert found["answers"][0]["nameservers"] == ["ns1.infini.test", "ns2.infini.test"]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WorldError("Gandi is away", retry=True), {"msg": "Gandi is away", "retry": True}),
        (ByHandError("member", "Cliquez ici"), {"msg": "Cliquez ici", "who": "member"}),
        (RefusedError("No"), {"msg": "No"}),
    ],
)
def test_each_failure_of_ours_is_a_sentence(error, said):
    answers = []
    with doors.sentences(lambda **answer: answers.append(answer)):
        raise error
    assert answers == [said]


def test_a_mistake_of_ours_is_not_dressed_up_as_a_sentence():
    with pytest.raises(ZeroDivisionError), doors.sentences(lambda **_answer: None):
        raise ZeroDivisionError


# --- the module that writes ---

SWITCH = Verdict(State.DS_REMOVED, State.NS_SWITCHED, True, "Tout est prêt", action="switch")
WAITS = Verdict(State.NS_SWITCHED, State.SETTLED, False, "Les caches oublient", NOW, side=State.WAITING)
STEPS = {
    "look": [doors.told(Step(NAME, NOW, SWITCH)), doors.told(Step("bourg.example", NOW, WAITS))],
    "apply": [
        doors.told(Step(NAME, NOW, WAITS, acted="switch")),
        doors.told(Step("bourg.example", NOW, WAITS)),
    ],
}


@pytest.fixture
def command(monkeypatch):
    """Stand where `infini domains advance` runs; return what it was called with."""
    called = []

    def ran(words, **more):
        called.append(words[3:])
        assert more["stdin"] == subprocess.DEVNULL
        answer = json.dumps({"ok": True, "steps": STEPS["apply" if "--apply" in words else "look"]})
        return subprocess.CompletedProcess(words, 1, answer, "progress")

    monkeypatch.setattr(doors.subprocess, "run", ran)
    return called


def test_a_step_is_told_as_data():
    assert doors.told(Step(NAME, NOW, SWITCH)) == {
        "domain": NAME,
        "state": "DS_REMOVED",
        "side": "",
        "acted": "",
        "action": "switch",
        "irreversible": False,
        "code": "",
        "who": "tool",
        "until": None,
        "says": "Tout est prêt",
    }
    waits = doors.told(Step(NAME, NOW, WAITS, acted="switch"))
    assert (waits["side"], waits["until"], waits["acted"]) == ("WAITING", NOW.isoformat(), "switch")


def test_a_step_that_is_forbidden_is_not_told_as_what_comes_next():
    forbidden = Verdict(State.SERVICES_OK, None, False, "Non", action="order", irreversible=True)
    assert doors.told(Step(NAME, NOW, forbidden))["action"] == ""


def test_a_secret_in_a_reason_is_not_told():
    secrets.Secret("a-code-that-leaked")
    leaked = Verdict(State.UNLOCKED, None, False, "Le code a-code-that-leaked est refusé")
    assert "leaked" not in doors.told(Step(NAME, NOW, leaked))["says"]


def test_check_mode_looks_and_does_nothing(command, capsys):
    answer = run("domain_transfers", capsys, check=True, inventory="/inventory", names=[NAME])
    assert command == [["domains", "advance", NAME, "--inventory", "/inventory", "--json"]]
    assert (answer["changed"], answer["steps"]) == (True, STEPS["look"])
    assert f"{NAME}: DS_REMOVED → switch" in answer["diff"]["after"]


def test_steps_are_taken_after_a_look(command, capsys):
    answer = run("domain_transfers", capsys, inventory="/inventory", until="SETTLED")
    look = ["domains", "advance", "--inventory", "/inventory", "--json", "--until", "SETTLED"]
    assert command == [look, [*look, "--apply"]]
    assert (answer["changed"], answer["steps"]) == (True, STEPS["apply"])
    assert answer["diff"] == {
        "before": f"{NAME}: DS_REMOVED\nbourg.example: NS_SWITCHED\n",
        "after": f"{NAME}: NS_SWITCHED\nbourg.example: NS_SWITCHED\n",
    }


def test_nothing_to_do_is_no_change(command, monkeypatch, capsys):
    monkeypatch.setitem(STEPS, "look", STEPS["apply"])
    answer = run("domain_transfers", capsys, inventory="/inventory")
    assert len(command) == 2
    assert answer["changed"] is False


def test_no_option_leads_past_the_state_machine(command, capsys):
    answer = run("domain_transfers", capsys, inventory="/inventory", force=True)
    assert answer["failed"]
    answer = run("domain_transfers", capsys, inventory="/inventory", until="TRANSFER_ORDERED")
    assert answer["failed"]
    assert not command


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        ("", "Somebody holds it\nWait for the end of the other run\n", "Wait for the end of the other run"),
        ("", "╭─ Error ──╮\n│ No such command.    │\n╰──────────╯\n", "No such command."),
        ('{"ok": false, "error": "The group control has no host"}', "progress", "The group control has no host"),
        ("{}", "", "infini domains advance ended with status 2"),
        ("[", "", "infini domains advance ended with status 2"),
    ],
)
def test_a_command_that_refuses_is_a_sentence(out, err, said, monkeypatch, capsys):
    monkeypatch.setattr(doors.subprocess, "run", lambda words, **_more: subprocess.CompletedProcess(words, 2, out, err))
    answer = run("domain_transfers", capsys, inventory="/inventory")
    assert answer["msg"] == said


# --- documentation ---


def documents(module):
    source = importlib.import_module(module)
    return yaml.safe_load(source.DOCUMENTATION), yaml.safe_load(source.EXAMPLES), yaml.safe_load(source.RETURN)


@pytest.mark.parametrize("module", MODULES)
def test_examples_and_options_are_documented(module, monkeypatch):
    about, examples, returned = documents(module)
    assert about["module"] == module
    assert all(value.get("description") for value in returned.values())
    for example in examples:
        assert set(example[module]) <= set(about["options"])
        assert {name for name, option in about["options"].items() if option.get("required")} <= set(example[module])
    # The module's own specification, caught on its way, has the same options, types and defaults.
    caught = {}

    class StopError(Exception):
        pass

    def catch(spec, **_more):
        caught.update(spec)
        raise StopError

    monkeypatch.setattr(importlib.import_module(module), "AnsibleModule", catch)
    with pytest.raises(StopError):
        importlib.import_module(module).main()
    for name, option in about["options"].items():
        for key in ("type", "default", "required", "choices", "elements"):
            assert caught[name].get(key) == option.get(key), f"{name}.{key}"
    assert set(caught) == set(about["options"])


def test_exactly_one_module_writes():
    """Who imports what can change something at a registrar, by name."""
    writing = re.compile(
        r"set_nameservers|set_lock|set_ttls|remove_dnskeys|auth_code|\border\(|run_until_blocked|advance"
    )
    writers = [name for name in MODULES if writing.search((ROOT / f"library/{name}.py").read_text())]
    assert writers == ["domain_transfers"]
