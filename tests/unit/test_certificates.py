# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that keeps certificates, and the door of the module that starts it."""

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import certificates
import pytest
from ansible.module_utils.hosting import certificates_door
from ansible.module_utils.testing import patch_module_args
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = Path(__file__).parents[2] / "roles/certificates/tree/usr/local/lib/infini/certificates.py"
NOW = 1_800_000_000
DAY = 86400


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("certificates_program", PROGRAM)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # a __pycache__ in the tree would go to the hosts
        spec.loader.exec_module(loaded)
    yield loaded
    del sys.modules[spec.name]


class Front(threading.Thread):
    """An HAProxy that answers on its socket as the real one does (2.6 and 3.0), and remembers."""

    def __init__(self, path: Path, held: set[str], *, grumpy: bool = False) -> None:
        super().__init__(daemon=True)
        self.held, self.served, self.said, self.grumpy = set(held), set(held), [], grumpy
        self.line = socket.socket(socket.AF_UNIX)
        self.line.bind(str(path))
        self.line.listen()
        self.start()

    def run(self):
        while True:
            try:
                talk, _ = self.line.accept()
            except OSError:
                return
            with talk:
                command = b""
                while part := talk.recv(65536):
                    command += part
                talk.sendall(self.answer(command.decode()).encode())

    def answer(self, command: str) -> str:
        verb = command.splitlines()[0].removesuffix(" <<")
        self.said.append(verb)
        words = verb.split()
        if self.grumpy and words[0] == "commit":
            return "unable to load the certificate\n"
        if words[:2] == ["show", "ssl"]:
            return "\n".join(["#", *sorted(self.held if words[2] == "cert" else self.served)])
        if words[0] == "new":
            self.held.add(words[3])
        elif words[0] == "add":
            self.served.add(words[-1])
        elif words[0] == "del":
            (self.held if words[2] == "cert" else self.served).discard(words[-1])
        return {"new": "New empty certificate store", "set": "Transaction created", "show": "2.6"}.get(
            words[0], "Success!"
        )


@pytest.fixture
def host(tmp_path, program):
    """A host with a declared name, its certificate held by dehydrated, and HAProxy's directory."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "domains.txt").write_text("# ours\nvelo.test www.velo.test\n")
    settings = program.Settings(
        domains=tmp_path / "domains.txt",
        lists=[tmp_path / "names"],
        base=tmp_path,
        deploy=tmp_path / "deploy",
        socket=tmp_path / "admin.sock",
        renew_days=30,
        batch=90,
        rest_hours=1,
    )
    make_certificate(tmp_path, "velo.test", "www.velo.test")
    return settings


def make_certificate(base: Path, name: str, *aliases: str, days: int = 90, stamp: str = "1") -> None:
    """Leave files as dehydrated does: stamped, with links to the current ones."""
    folder = base / "certs" / name
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / f"privkey-{stamp}.pem", folder / f"cert-{stamp}.pem"
    names = ",".join(f"DNS:{n}" for n in (name, *aliases))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-days", str(days)]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    (folder / f"fullchain-{stamp}.pem").write_text(certificate.read_text())
    for part in ("privkey", "cert", "fullchain"):
        link = folder / f"{part}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{part}-{stamp}.pem")


def test_a_line_is_a_certificate(program):
    text = "# comment\n\nVelo.test WWW.velo.test\nbourg.test\n"
    assert program.declared(text) == {
        "velo.test": {"velo.test", "www.velo.test"},
        "bourg.test": {"bourg.test"},
    }


def test_what_is_due_and_why_the_most_urgent_first(program):
    wanted = {name: frozenset({name}) for name in ("new", "fine", "soon", "sooner")}
    wanted["alias"] = frozenset({"alias", "www"})
    have = {name: {"names": [name], "until": NOW + 60 * DAY} for name in ("fine", "alias")}
    have["soon"] = {"names": ["soon"], "until": NOW + 20 * DAY}
    have["sooner"] = {"names": ["sooner"], "until": NOW + 2 * DAY}
    assert list(program.due(wanted, have, 30, NOW).items()) == [
        ("new", "missing"),
        ("sooner", "expires"),
        ("soon", "expires"),
        ("alias", "names changed"),
    ]


@given(count=st.integers(1, 50))
def test_a_name_that_fails_rests_longer_and_longer_but_never_more_than_a_day(program, count):
    rest = program.rests_until({"last": NOW, "count": count}, 1) - NOW
    assert 3600 <= rest <= DAY
    assert rest == DAY or rest == 3600 * 2 ** (count - 1)
    assert program.rests_until({"last": NOW, "count": count}, 0) == NOW


@given(declared=st.sets(st.integers(0, 40)), existing=st.sets(st.integers(0, 40)))
def test_a_mistake_in_the_inventory_does_not_take_the_sites_down(program, declared, existing):
    wanted = {str(n): frozenset({str(n)}) for n in declared}
    gone, too_many = program.retired(wanted, [str(n) for n in existing])
    assert set(gone) == {str(n) for n in existing - declared}
    assert too_many == (len(gone) > (2 if len(existing) < 10 else 0.3 * len(existing)))


OUTPUT = """# INFO: Using main config file /etc/dehydrated/config
Processing velo.test with alternative names: www.velo.test
 + Challenge is valid!
Processing bourg.test
 + Challenge validation has failed :(
ERROR: Challenge is invalid! (returned: invalid) (result: ["type"]	"http-01"
["error","detail"]	"Get \\"http://bourg.test:80/.well-known/acme-challenge/a_b-C1\\": no such host"
["error","status"]	400)
Processing jardin.test
ERROR: Problem connecting to server (get for https://ca.test/dir; curl returned with 7)
"""


def test_each_name_that_failed_is_told_why(program):
    assert program.complaints(OUTPUT) == {
        "bourg.test": "Get 'http://bourg.test:80/…': no such host",
        "jardin.test": "Problem connecting to server (get for https://ca.test/dir; curl returned with 7)",
    }


def test_failures_are_remembered_and_forgotten(program, tmp_path):
    ledger = program.Ledger(tmp_path / "ledger")
    program.note(ledger, ["a", "b"], {"a": "x"}, NOW)
    program.note(ledger, ["a"], {"a": "y"}, NOW + 5)
    assert ledger.failures == {"a": {"count": 2, "last": NOW + 5, "reason": "y"}}
    ledger.save()
    assert program.Ledger.load(ledger.path) == ledger
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    program.note(ledger, ["a"], {}, NOW + 9)
    assert not ledger.failures


def test_a_damaged_ledger_is_made_again(program, tmp_path):
    (tmp_path / "ledger").write_text("{")
    assert program.Ledger.load(tmp_path / "ledger").failures == {}


def test_a_new_certificate_is_written_closed_and_served(program, host):
    front = Front(host.socket, set())
    assert program.deploy(host, ["velo.test"]) == ["velo.test"]
    pem = host.deploy / "velo.test.pem"
    assert pem.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in pem.read_text()
    assert "\n\n" not in pem.read_text()  # an empty line would end HAProxy's reading
    assert front.served == {str(pem)}
    assert program.deploy(host, ["velo.test"]) == []


def test_a_renewed_certificate_replaces_the_one_in_service(program, host):
    pem = str(host.deploy / "velo.test.pem")
    program.deploy(host, ["velo.test"])  # HAProxy does not run yet: the file alone
    front = Front(host.socket, {pem})
    make_certificate(host.base, "velo.test", "www.velo.test", stamp="2")
    program.deploy(host, ["velo.test"])
    changes = [word for word in front.said if not word.startswith("show")]
    assert changes == [f"abort ssl cert {pem}", f"set ssl cert {pem}", f"commit ssl cert {pem}"]


def test_haproxy_is_reloaded_where_the_swap_fails(program, host, monkeypatch, capsys):
    Front(host.socket, set(), grumpy=True)
    calls = []
    monkeypatch.setattr(program, "reload_haproxy", lambda: calls.append("reload"))
    program.deploy(host, ["velo.test"])
    assert calls == ["reload"]
    assert "unable to load" in capsys.readouterr().out


def test_a_half_obtained_certificate_is_left_alone(program, host):
    (host.base / "certs/velo.test/fullchain.pem").unlink()
    assert program.deploy(host, ["velo.test"]) == []


def test_a_certificate_of_another_key_is_never_served_and_obtained_again(program, host):
    program.deploy(host, ["velo.test"])
    served = (host.deploy / "velo.test.pem").read_text()
    make_certificate(host.base, "velo.test", "www.velo.test", stamp="2")
    key = host.base / "certs/velo.test/privkey.pem"
    key.unlink()
    key.symlink_to("privkey-1.pem")
    assert program.deploy(host, ["velo.test"]) == []
    assert (host.deploy / "velo.test.pem").read_text() == served
    state = program.status(host, program.Ledger(host.base / "ledger"), program.time.time())
    assert (state["due"], state["undeployed"]) == ({"velo.test": "missing"}, [])


def test_a_name_no_longer_declared_is_archived_not_destroyed(program, host):
    program.deploy(host, ["velo.test"])
    pem = host.deploy / "velo.test.pem"
    front = Front(host.socket, {str(pem)})
    program.retire(host, ["velo.test"])
    assert not pem.exists()
    assert not front.served
    assert not front.held
    archived = list((host.base / "archive").glob("velo.test-retired-*/privkey-1.pem"))
    assert len(archived) == 1


def test_a_declared_name_is_not_retired(program, host):
    with pytest.raises(program.BrokenError, match="still declared"):
        program.refuse_declared(host, ["velo.test"])


def test_status_says_what_a_run_would_do(program, host):
    (host.base / "certs/ancien.test").mkdir()
    host.domains.write_text("velo.test www.velo.test\nbourg.test\nrepos.test\n")
    ledger = program.Ledger(host.base / "ledger")
    now = program.time.time()
    ledger.failures = {"repos.test": {"count": 1, "last": now, "reason": "no such host."}}
    state = program.status(host, ledger, now)
    assert state["due"] == {"bourg.test": "missing", "repos.test": "missing"}
    assert state["ready"] == ["bourg.test"]
    assert state["undeployed"] == ["velo.test"]
    assert state["retired"] == ["ancien.test"]
    assert state["failures"][0].startswith("repos.test: no new certificate (it has none): no such host; next try after")


def test_names_that_another_program_keeps_have_a_certificate_each_and_are_told_apart(program, host):
    now = program.time.time()
    ledger = program.Ledger(host.base / "ledger")
    assert program.status(host, ledger, now)["due"] == {}, "the list need not be there"
    (host.base / "names").write_text("site.example\nwww.velo.test\nailleurs.example\nneuf.example\n")
    ledger.failures = {
        "ailleurs.example": {"count": 9, "last": now - DAY, "reason": "no such host"},
        "site.example": {"count": 1, "last": now - DAY, "reason": "no such host"},
    }
    state = program.status(host, ledger, now)
    assert state["ready"] == ["neuf.example", "site.example", "ailleurs.example"], "what fails keeps nobody waiting"
    assert state["declared"] == 4, "www.velo.test has one already"
    assert state["failures"] == []
    assert [line.split(":")[0] for line in state["listed_failures"]] == ["ailleurs.example", "site.example"]
    with pytest.raises(program.BrokenError, match="still declared"):
        program.refuse_declared(host, ["site.example"])


def test_names_that_never_had_a_certificate_do_not_hold_the_others_back(program, host):
    for number in range(20):
        (host.base / f"certs/rafale{number}.example").mkdir()
    for number in range(10):
        make_certificate(host.base, f"site{number}.example")
    (host.base / "names").write_text("".join(f"site{number}.example\n" for number in range(1, 10)))
    state = program.status(host, program.Ledger(host.base / "ledger"), program.time.time())
    assert len(state["retired"]) == 21
    assert (state["kept"], "site0.example" in state["retired"]) == ([], True)
    (host.base / "names").write_text("")
    state = program.status(host, program.Ledger(host.base / "ledger"), program.time.time())
    assert (len(state["retired"]), len(state["kept"])) == (20, 10)


def test_only_a_certificate_that_should_have_been_renewed_is_an_alarm(program, host):
    (host.base / "names").write_text("site.example\nnulle-part.example\n")
    ledger, now = program.Ledger(host.base / "ledger"), program.time.time()
    make_certificate(host.base, "site.example", days=25)
    assert program.ending(host, ledger, now) == []
    make_certificate(host.base, "site.example", days=20, stamp="2")
    ledger.failures = {"site.example": {"count": 3, "last": now, "reason": "no such host"}}
    (line,) = program.ending(host, ledger, now)
    assert line.startswith("site.example: no new certificate (the one it has ends on ")
    assert "no such host" in line


def fake_dehydrated(host, program, monkeypatch, outputs):
    """Play dehydrated: one output a --cron, making certificates for the names it is not said to fail."""
    said = []

    def run(*words):
        said.append(words[0])
        if words[0] != "--cron":
            return 0, ""
        text, failing = outputs.pop(0)
        for line in Path(words[3]).read_text().splitlines():
            name, *aliases = line.split()
            if name not in failing:
                make_certificate(host.base, name, *aliases, stamp=str(len(said) + 10))
        return 1 if failing else 0, text

    monkeypatch.setattr(program, "dehydrated", run)
    monkeypatch.setattr(program, "PARALLEL", 1)
    return said


def test_one_failing_site_does_not_stop_the_others(program, host, monkeypatch, capsys):
    host.domains.write_text("velo.test www.velo.test\nbourg.test\njardin.test\n")
    fake_dehydrated(host, program, monkeypatch, [(OUTPUT, {"bourg.test"})])
    ledger = program.Ledger(host.base / "ledger")
    program.renew(host, ledger, patient=True)
    assert sorted(path.stem for path in host.deploy.glob("[a-z]*.pem")) == ["jardin.test", "velo.test"]
    assert list(ledger.failures) == ["bourg.test"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("bourg.test: no new certificate (it has none): Get ")


def test_names_are_asked_for_a_few_at_the_same_time(program, host, monkeypatch):
    names = [f"site{number}.test" for number in range(10)]
    shares = []

    def run(*words):
        shares.append(Path(words[3]).read_text().split())
        return 0, "Processing something\n"

    monkeypatch.setattr(program, "dehydrated", run)
    program.obtain(host, names, {name: frozenset({name}) for name in names})
    assert sorted(name for share in shares for name in share) == names
    assert len(shares) == program.PARALLEL
    assert not list(host.base.glob("due-*"))


def test_an_authority_that_forgot_us_is_registered_with_again(program, host, monkeypatch):
    host.domains.write_text("bourg.test\nvelo.test www.velo.test\n")
    (host.base / "accounts").mkdir()
    forgot = "Processing bourg.test\nurn:ietf:params:acme:error:accountDoesNotExist\n"
    said = fake_dehydrated(host, program, monkeypatch, [(forgot, {"bourg.test"}), ("Processing bourg.test\n", set())])
    monkeypatch.setattr(program.time, "sleep", lambda seconds: said.append(f"{seconds} s"))
    ledger = program.Ledger(host.base / "ledger")
    program.renew(host, ledger, patient=True)
    assert said == ["--register", "--cron", "--register", "1 s", "--cron", "--cleanup"]
    assert not ledger.failures
    assert not (host.base / "accounts").exists()
    assert list((host.base / "archive").glob("accounts-*"))


def test_what_was_obtained_is_served_even_if_the_authority_breaks_off(program, host, monkeypatch):
    host.domains.write_text("velo.test www.velo.test\nbourg.test\n")
    monkeypatch.setattr(program, "dehydrated", lambda *_: (1, "ERROR: Problem connecting to server\n"))
    with pytest.raises(program.BrokenError, match="Problem connecting to server"):
        program.renew(host, program.Ledger(host.base / "ledger"), patient=True)
    assert (host.deploy / "velo.test.pem").exists()


IDLE = {"due": {}, "ready": [], "undeployed": [], "retired": [], "kept": [], "failures": []}


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Ask the door of a host that answers with these states, one a question, and whose service has ended."""

    def ask(*states, ended=NOW, job="", active="inactive", check_mode=False, **asked):
        answers, started = list(states), []
        unit = [f"ActiveState={active}", f"ExecMainStartTimestampMonotonic={ended * 1_000_000}", f"Job={job}"]
        said = {
            "show": unit,
            "start": [],
            "--unit": ["dehydrated: the authority sleeps", "certificates.service: Failed"],
        }

        def run(*words):
            if words[1] == "status":
                return [json.dumps({"listed": [], **answers.pop(0)})]
            started.extend(words[1:2] if words[1] == "start" else [])
            return said[words[1]]

        monkeypatch.setattr(certificates_door, "PROGRAM", tmp_path)
        monkeypatch.setattr(certificates_door, "run", run)
        asked = {"declared": 2, "begun": {}, "strict": False, **asked}
        return certificates_door.answer(asked, check_mode=check_mode, diff=False), len(started)

    return ask


DUE = {**IDLE, "due": {"a": "missing", "b": "missing"}, "ready": ["a", "b"]}
HALF = {**IDLE, "due": {"b": "missing"}, "failures": ["b: no new certificate (it has none): no such host."]}
BEGUN = {"at": NOW - 1, "before": DUE}


def test_nothing_due_nothing_begun(ask):
    result, started = ask(IDLE)
    assert (result["changed"], result["begun"], started) == (False, {}, 0)


def test_what_is_due_is_begun_and_nobody_waits(ask):
    result, started = ask(DUE)
    assert (result["changed"], result["begun"]["before"]["ready"], started) == (False, ["a", "b"], 1)


def test_a_run_that_goes_on_is_asked_for_nothing(ask):
    result, started = ask(begun=BEGUN, job="12", active="activating")
    assert (result, started) == ({"changed": False, "finished": False}, 0)


def test_what_came_and_what_failed_is_said(ask):
    result, started = ask(HALF, begun=BEGUN)
    assert (result["finished"], result["changed"], result["obtained"], started) == (True, True, ["a"], 0)
    assert result["failures"] == HALF["failures"]


def test_a_run_on_its_way_that_did_not_know_the_names_is_followed_by_another(ask):
    result, started = ask(DUE, begun=BEGUN, ended=NOW - 2)
    assert (result["finished"], started) == (False, 1)
    result, started = ask(DUE, begun=BEGUN)  # one that knew them, and could not: the timer's matter
    assert (result["finished"], result["obtained"], started) == (True, [], 0)


def test_a_run_that_broke_says_why(ask):
    result, _ = ask(begun=BEGUN, active="failed")
    assert result == {"failed": True, "msg": "dehydrated: the authority sleeps"}


def test_a_host_that_does_not_answer_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(certificates_door, "PROGRAM", tmp_path / "certificates")
    (tmp_path / "certificates").write_text("#!/bin/sh\necho no ledger >&2; exit 1\n")
    (tmp_path / "certificates").chmod(0o755)
    asked = {"declared": 2, "begun": {}, "strict": False}
    result = certificates_door.answer(asked, check_mode=False, diff=False)
    assert result["msg"] == f"{tmp_path}/certificates status failed: no ledger"


def test_names_that_another_program_keeps_are_its_own_matter(ask):
    state = {**IDLE, "listed": ["a"], "due": {"a": "missing", "b": "ends"}, "ready": ["a", "b"], "undeployed": ["a"]}
    before = ask(state)[0]["begun"]["before"]
    assert before == {**state, "due": {"b": "ends"}, "ready": ["b"], "undeployed": []}


def test_a_resting_name_changes_nothing_and_is_still_named(ask):
    result, started = ask(HALF)
    assert (result["changed"], result["failures"], started) == (False, HALF["failures"], 0)


@pytest.mark.parametrize("how", [{}, {"begun": BEGUN}, {"check_mode": True}])
def test_strict_fails_naming_the_site(ask, how):
    result, _ = ask(HALF, strict=True, **how)
    assert result["failed"]
    assert result["msg"] == HALF["failures"][0]


def test_check_mode_starts_nothing(ask):
    result, started = ask(DUE, check_mode=True)
    assert (result["changed"], result["begun"], started) == (True, {}, 0)


def test_check_mode_on_an_empty_host(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(certificates_door, "PROGRAM", tmp_path / "nothing")
    with patch_module_args({"declared": 2, "_ansible_check_mode": True}), pytest.raises(SystemExit):
        certificates.main()
    assert json.loads(capsys.readouterr().out)["changed"]
