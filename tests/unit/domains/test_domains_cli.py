# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""`infini domains` in a rehearsal: what a newcomer types, what it answers, and that looking changes nothing."""

import getpass
import io
import json
import re
import shlex
import sys

import pytest
import typer
from typer.testing import CliRunner

import infini.cli
from infini import ROOT
from infini.domains.cli import QUESTIONS, domains_app
from infini.domains.states import DECISIONS
from infini.errors import InfiniError, RefusedError
from infini.phrase import said

RUN = CliRunner()
COMMAND = typer.main.get_command(domains_app)
PAGE = ROOT / "docs" / "quitter-gandi.md"


def parsed(command):
    """Return the words of a printed command, once the command line takes them as they stand."""
    words = shlex.split(command)
    assert words[:2] == ["./infini", "domains"]
    COMMAND.commands[words[2]].make_context(words[2], words[3:]).close()
    return words[2:]


def arrows(output):
    """Return the commands that an output shows, each parsed; nothing else may stand behind an arrow."""
    found = [line.strip()[2:] for line in output.splitlines() if line.strip().startswith("→ ")]
    for command in found:
        parsed(command)
    return found


class Keyboard(io.StringIO):
    """A terminal at which something is typed."""

    def isatty(self):
        return True


class Newcomer:
    """Somebody who types what is printed, or what a page says, and reads the answer; `typed` keeps all of it."""

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.typed, self.said = [], ""

    def types(self, command, answers=""):
        """Type a command, then what it asks for; a code that was read out is typed where one is asked for."""
        spoken = self.said.rpartition("code de transfert : ")[2].split()
        self._monkeypatch.setattr(sys, "stdin", Keyboard(answers))
        self._monkeypatch.setattr(getpass, "getpass", lambda _prompt: spoken[0])
        words = parsed(command)
        self._capsys.readouterr()
        try:
            status = COMMAND(words, standalone_mode=False) or 0
        except InfiniError as error:
            raise AssertionError(f"{command}: {said(error.args[0])}") from error
        told = self._capsys.readouterr()
        self.typed.append(command)
        self.said = told.err
        arrows(told.err)
        return status

    @property
    def offered(self):
        """Return the commands that were last shown."""
        return arrows(self.said)

    def goes_on(self, until, choice="mode=none", answers=""):
        """Type the last command shown (where there is a choice, this one) until an answer says something."""
        for _ in range(60):
            if until in self.said:
                return
            self.types(next((one for one in self.offered if choice in one), self.offered[-1]), answers)
        raise AssertionError(self.said)


@pytest.fixture
def newcomer(monkeypatch, capsys):
    return Newcomer(monkeypatch, capsys)


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
    offered = arrows(run("advance", "abandon.test", "--apply"))
    modes = [command.partition("mode=")[2].split()[0] for command in offered]
    assert modes == ["none", "external", "infini", "gandi"]
    run("decide", "abandon.test", "mail-mode", "mode=none")
    assert run("advance", "--apply", "--json")["steps"][0]["code"] == "unreadable-record"
    run("decide", "abandon.test", "waiver", "subject=preuve/TXT", "reason=ne sert plus", "--by", "Camille")
    assert run("advance", "--apply", "--json")["steps"][0]["code"] == "consent-missing"
    assert run("message", "abandon.test", "--json")["kind"] == "accord"
    assert "titulaire, répond « oui" in run("rehearse", "--keep", str(run.folder), "--step", rehearsal=False)
    run("decide", "abandon.test", "consent", "by=Camille", "date=2026-03-02", "payer=association")
    assert run("advance", "--apply", "--until", "PROVISIONED", "--json")["steps"][0]["state"] == "PROVISIONED"
    rows = run("board", "--json")["rows"]
    assert [(row["domain"], row["state"]) for row in rows] == [("abandon.test", "PROVISIONED")]
    assert run("rollback", "abandon.test", "--to", "CONSENTED", "--json")["steps"][0]["action"] == "remove-zone"


def test_a_step_says_whose_turn_it_is_from_the_first_to_the_last(run):
    def step():
        return run("rehearse", "--keep", str(run.folder), "--step", rehearsal=False)

    begun = step()
    assert "c'est à vous" in begun
    assert arrows(begun) == [f"./infini domains plan abandon.test --rehearsal {run.folder}"]
    run("advance", "abandon.test", "--apply")
    run("decide", "abandon.test", "abandon", "reason=le membre reste")
    run("advance", "abandon.test", "--apply")
    ended = step()
    assert "plus personne n'a rien à faire" in ended
    assert arrows(ended) == []


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


def page_commands(page, tmp_path):
    """Return what the page has one type, in its order, its folders put elsewhere."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [re.sub(r"\B/tmp\b", str(tmp_path), line) for block in blocks for line in block.splitlines()]


def test_the_page_can_be_typed_from_the_top(newcomer, tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    forward, _, back = page.partition("## Revenir en arrière")
    for command in page_commands(forward, tmp_path):
        if " decide " in command:
            newcomer.goes_on(command)
        elif " board " in command:
            newcomer.goes_on("terminé")
        assert newcomer.types(command) == 0, newcomer.said
    assert newcomer.said.splitlines()[-1] == "La preuve est complète."
    assert len(newcomer.typed) < 40

    begin, undo, resume = page_commands(back.partition("## Essayer")[0], tmp_path)
    newcomer.types(begin)
    newcomer.goes_on("bascule faite")
    newcomer.types(undo)
    newcomer.goes_on("revenu en arrière")
    assert newcomer.offered == [resume]
    newcomer.types(resume)
    newcomer.goes_on("bascule faite")


@pytest.mark.parametrize(
    ("archetype", "mode", "answers"),
    [
        ("level_c", "none", ""),
        ("mail_only", "infini", ""),
        ("broken_txt_waived", "none", "ne sert plus\n"),
    ],
)
def test_who_follows_the_arrows_arrives(newcomer, tmp_path, archetype, mode, answers):
    newcomer.types(f"./infini domains rehearse --keep {tmp_path}/essai --archetype {archetype}")
    newcomer.goes_on("terminé", f"mode={mode}", answers)
    assert any(" code " in command for command in newcomer.typed) is (archetype == "level_c")


@pytest.mark.parametrize("archetype", ["alias", "expires_soon", "transfer_refused"])
def test_a_foretold_end_is_told(newcomer, tmp_path, archetype):
    newcomer.types(f"./infini domains rehearse --keep {tmp_path}/essai --archetype {archetype}")
    newcomer.goes_on("comme annoncé")
    assert any(" message " in command for command in newcomer.offered)


def test_a_step_back_is_shown_before_it_is_taken(newcomer, tmp_path):
    newcomer.types(f"./infini domains rehearse --keep {tmp_path}/essai --archetype parking")
    newcomer.goes_on("bascule faite")
    back = f"rollback attente.test --to CONSENTED --rehearsal {tmp_path}/essai"
    newcomer.types(f"./infini domains {back}")
    assert "Remettre les serveurs de noms de Gandi." in newcomer.said
    assert newcomer.offered == [f"./infini domains {back}".replace(" --rehearsal", " --apply --rehearsal")]
    newcomer.types(newcomer.offered[0])
    newcomer.types(f"./infini domains report attente.test --rehearsal {tmp_path}/essai")
    assert "La preuve n'est pas complète" in newcomer.said
    assert "un retour en arrière est demandé" in newcomer.said


def test_a_folder_with_a_space_stays_one_word(newcomer, tmp_path):
    folder = tmp_path / "un essai"
    newcomer.types(f"./infini domains rehearse --keep '{folder}' --archetype parking")
    newcomer.goes_on("bloqué : copié")
    assert f"--rehearsal '{folder}'" in newcomer.offered[0]


def test_everything_that_a_decision_lacks_can_be_asked_for():
    assert {field for fields in DECISIONS.values() for field in fields} <= set(QUESTIONS)


def test_the_inventory_says_where_the_dns_is(run):
    line = next(line for line in run("inventory").splitlines() if "abandon.test" in line)
    assert [cell.strip() for cell in line.split("│")][1:-1] == ["abandon.test", "27/12/2026", "oui", "oui", "oui"]


def test_refusals_are_said_in_french(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["infini", "domains", "board", "--json", "--rehearsal", str(tmp_path / "rien")])
    with pytest.raises(SystemExit) as left:
        infini.cli.main()
    told = capsys.readouterr()
    assert left.value.code == 2
    assert "ne contient pas de répétition : commencez-en une" in told.err
    assert "ne contient pas de répétition" in json.loads(told.out)["error"]


def test_the_code_comes_from_the_terminal_only(run):
    with pytest.raises(RefusedError, match="terminal"):
        run("code", "abandon.test")
    names = {parameter.name for parameter in COMMAND.commands["code"].params}
    assert names == {"domain", "inventory", "rehearsal"}
