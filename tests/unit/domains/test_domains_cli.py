# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini domains` in a rehearsal: what a newcomer types, what it answers, and that looking changes nothing."""

import json

import pytest
from typer.testing import CliRunner

from infini.domains import cli
from infini.domains.cli import HINTS, domains_app
from infini.domains.states import DECISIONS
from infini.errors import RefusedError

RUN = CliRunner()


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "essai"

    def run(*words, rehearsal=True, status=0):
        given = [*words, *(["--rehearsal", str(folder)] if rehearsal else [])]
        result = RUN.invoke(domains_app, given)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return json.loads(result.stdout) if "--json" in words else result.output

    run.folder = folder
    run("rehearse", "--keep", str(folder), "--archetype", "broken_txt_waived", rehearsal=False)
    return run


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_looking_changes_nothing(run):
    before = files(run.folder)
    assert run("inventory", "--json")["domains"][0]["name"] == "abandon.test"
    assert run("plan", "abandon.test", "--json", status=1)["blocked"] == 1
    findings = run("audit", "abandon.test", "--json", status=1)["findings"]
    assert "unreadable-record" in [finding["code"] for finding in findings]
    assert run("advance", "abandon.test", "--json")["steps"][0]["action"] == "export"
    assert run("report", "abandon.test", "--json", status=1)["ok"] is False
    changed = {path.name for path, data in files(run.folder).items() if before.get(path) != data}
    assert changed <= {"board.json"}


def test_advance_goes_as_far_as_it_may_and_says_what_to_type(run):
    steps = run("advance", "abandon.test", "--apply", "--json")["steps"]
    assert (steps[0]["state"], steps[0]["side"], steps[0]["code"]) == ("EXPORTED", "BLOCKED", "mail-mode-missing")
    said = run("advance", "abandon.test", "--apply")
    assert "decide abandon.test mail-mode mode=CHOIX --rehearsal" in said
    run("decide", "abandon.test", "mail-mode", "mode=none")
    assert run("advance", "--apply", "--json")["steps"][0]["code"] == "unreadable-record"
    run("decide", "abandon.test", "waiver", "subject=preuve/TXT", "reason=ne sert plus", "--by", "Camille")
    assert run("advance", "--apply", "--json")["steps"][0]["code"] == "consent-missing"
    assert run("message", "abandon.test", "--json")["kind"] == "accord"
    assert "le titulaire répond" in run("rehearse", "--keep", str(run.folder), "--step", rehearsal=False)
    run("decide", "abandon.test", "consent", "by=Camille", "date=2026-03-02", "payer=association")
    assert run("advance", "--apply", "--until", "PROVISIONED", "--json")["steps"][0]["state"] == "PROVISIONED"
    rows = run("board", "--json")["rows"]
    assert [(row["domain"], row["state"]) for row in rows] == [("abandon.test", "PROVISIONED")]
    assert run("rollback", "abandon.test", "--to", "CONSENTED", "--json")["steps"][0]["action"] == "remove-zone"


def test_the_board_is_written(run, tmp_path):
    run("advance", "--apply")
    page, table = tmp_path / "board.html", tmp_path / "board.csv"
    run("board", "--fresh", "--html", str(page), "--csv", str(table))
    assert "abandon.test" in page.read_text()
    assert "abandon.test" in table.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["advance", "--until", "NOWHERE"], "name one of"),
        (["rollback", "abandon.test", "--to", "NOWHERE"], "name one of"),
        (["decide", "abandon.test", "consent", "oui"], "name=value"),
        (["decide", "abandon.test", "consent"], "il manque date"),
        (["decide", "abandon.test", "luck"], "pas une décision"),
        (["plan", "autre.test"], "not in this rehearsal"),
        (["plan", "a b.test"], "domain name|rehearsal"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(run, words, says):
    with pytest.raises(RefusedError, match=says):
        run(*words)


@pytest.mark.parametrize("words", [["--step"], ["--archetype", "signed"]])
def test_options_of_a_rehearsal_by_hand_want_a_folder(words):
    with pytest.raises(RefusedError, match="--keep"):
        raise RUN.invoke(domains_app, ["rehearse", *words]).exception


def test_a_fleet_is_rehearsed(monkeypatch):
    from infini.domains import archetypes

    monkeypatch.setattr(archetypes, "names", lambda: ["consent_missing", "empty"])
    result = RUN.invoke(domains_app, ["rehearse", "--domains", "3", "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {"ok", "domains", "done", "blocked", "unaccounted", "illegal_transitions", "seconds"} <= set(answer)
    assert (answer["domains"], answer["blocked"]) == (3, {"consent-missing": 2, "zone-empty": 1})


def test_every_hint_is_a_decision_that_exists_with_all_it_needs():
    for hint in HINTS.values():
        words = hint.format(domain="a.test").split()
        assert words[0] == "decide"
        given = {word.partition("=")[0] for word in words[3:]} | {"by"}
        assert set(DECISIONS[words[2]]) <= given


def test_the_code_comes_from_the_terminal_only(run):
    with pytest.raises(RefusedError, match="terminal"):
        run("code", "abandon.test")
    names = {parameter.name for parameter in cli.typer.main.get_command(domains_app).commands["code"].params}
    assert names == {"domain", "inventory", "rehearsal"}
