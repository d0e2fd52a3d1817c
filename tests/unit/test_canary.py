# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the canary of mail concludes from what it sees, and how it says it."""

import smtplib

import pytest

from hosting import canary

SETTINGS = canary.Settings(
    server="mx.infini.test",
    sender="canari@dehors.test",
    mailbox="canari@canari.test",
    list="canari@listes.canari.test",
    minutes=10,
    patience=150,
)
SEEN = "ARC-Authentication-Results: i=1; mx.infini.test;\r\n\tdkim=none; dmarc=pass\r\n\t(policy=reject)\r\n"
RAW = f"{SEEN}From: Dehors via Canari <canari@listes.canari.test>\r\nSubject: canari 1\r\n\r\nBonjour.\r\n".encode()


class Judges:
    """Signatures as they would be found."""

    def __init__(
        self, signers=("listes.canari.test",), arc="pass", sealer="listes.canari.test", policy="v=DMARC1; p=none"
    ):
        self.found, self.chain, self.policy = list(signers), (arc, sealer), policy

    def dkim(self, _raw):
        return self.found

    def arc(self, _raw):
        return self.chain

    def txt(self, name):
        assert name == "_dmarc.listes.canari.test"
        return self.policy


def test_a_message_that_is_signed_names_who_signed():
    assert canary.judge(RAW, canary.LIST, SETTINGS, Judges()) == "listes.canari.test"
    straight = Judges(signers=(), sealer="canari.test")
    assert canary.judge(RAW, canary.DIRECT, SETTINGS, straight) == "canari.test"


class Stumbling(Judges):
    """A judge that a message makes fall."""

    def dkim(self, _raw):
        raise ValueError("what is this")


@pytest.mark.parametrize(
    ("raw", "judges", "reason"),
    [
        (RAW, Judges(signers=()), "DKIM : pas de signature valable de listes.canari.test"),
        (RAW, Judges(signers=("autre.test",)), "DKIM : pas de signature valable"),
        (RAW, Judges(policy=""), "le DNS ne dit rien de _dmarc.listes.canari.test"),
        (RAW, Judges(arc="fail (as)"), "ARC : fail"),
        (RAW, Judges(sealer="ailleurs.test"), "scellé par ailleurs.test au lieu de listes.canari.test"),
        (RAW.replace(b"dmarc=pass", b"dmarc=fail"), Judges(), "n'a pas reconnu DMARC de dehors.test"),
        (RAW.replace(b"via Canari <canari@listes.canari.test>", b"<canari@dehors.test>"), Judges(), "de dehors.test"),
        (RAW.replace(SEEN.encode(), b""), Judges(), "n'a pas reconnu DMARC"),
        (RAW, Stumbling(), "what is this"),
    ],
)
def test_a_message_that_is_badly_signed_is_lost_for_a_reason(raw, judges, reason):
    with pytest.raises(canary.LostError) as lost:
        canary.judge(raw, canary.LIST, SETTINGS, judges)
    assert lost.value.stage == canary.SIGNATURE
    assert reason in lost.value.reason


def test_the_newest_seal_says_what_was_seen():
    older = RAW.replace(b"i=1", b"i=2").replace(b"From:", SEEN.replace("pass", "fail").encode() + b"From:", 1)
    assert canary.judge(older, canary.LIST, SETTINGS, Judges())


def refusing(problem):
    class Server:
        def __init__(self, *_how):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_how):
            pass

        def starttls(self, context):
            pass

        def sendmail(self, *_what):
            raise problem

    return Server


@pytest.mark.parametrize(
    ("way", "problem", "stage", "reason"),
    [
        (canary.LIST, smtplib.SMTPRecipientsRefused({"x": (550, b"5.1.1 unknown")}), "list", "550 5.1.1 unknown"),
        (canary.DIRECT, smtplib.SMTPRecipientsRefused({"x": (550, b"5.1.1 off")}), "mailbox", "550 5.1.1 off"),
        (canary.LIST, smtplib.SMTPRecipientsRefused({"x": (451, b"4.7.1 later")}), "sent", "451 4.7.1 later"),
        (canary.LIST, smtplib.SMTPDataError(554, b"5.7.1 spam"), "sent", "554 5.7.1 spam"),
        (canary.LIST, ConnectionRefusedError(111, "Connection refused"), "sent", "refused"),
        (canary.LIST, smtplib.SMTPServerDisconnected(), "sent", "SMTPServerDisconnected"),
    ],
)
def test_a_refusal_belongs_to_who_refused(monkeypatch, way, problem, stage, reason):
    monkeypatch.setattr(canary.smtplib, "SMTP", refusing(problem))
    monkeypatch.setattr(canary, "INSIST", 0)
    with pytest.raises(canary.LostError) as lost:
        canary._send(SETTINGS, way, SETTINGS.ways[way], "canari 1", None)
    assert lost.value.stage == stage
    assert reason in lost.value.reason


FINE = {"seconds": {"direct": 3, "list": 12}, "signed": {"direct": "canari.test", "list": "listes.canari.test"}}


def test_what_became_of_it_is_written_down_and_said(tmp_path, capsys):
    path = tmp_path / "state.json"
    assert canary.run(lambda: FINE, path, SETTINGS) == 0
    said = capsys.readouterr().out
    assert "revenu il y a 0 min, par la liste en 12 s (DKIM, ARC et DMARC de listes.canari.test)" in said
    assert "droit à la boîte en 3 s (DMARC reconnu, ARC de canari.test)" in said

    def lost():
        raise canary.LostError("list", "rien\naprès 150 s")

    assert canary.run(lost, path, SETTINGS) == 1
    state = canary.read(path)
    good, sentence = canary.check(state, SETTINGS, state["ran"] + 240)
    assert not good
    assert "la liste canari@listes.canari.test (rien après 150 s)" in sentence
    assert "Dernier retour il y a 4 min" in sentence
    assert list(tmp_path.iterdir()) == [path], "nothing half written stays"


@pytest.mark.parametrize("stage", canary.MENDS)
def test_each_stage_has_its_sentence_with_the_mend(stage):
    state = {"ran": 1000.0, "stage": stage, "reason": "parce que"}
    good, sentence = canary.check(state, SETTINGS, 1000.0)
    assert not good
    assert "(parce que)" in sentence
    assert "mx.infini.test" in sentence
    assert "{" not in sentence


def test_a_canary_that_does_not_fly_is_missed_within_a_quarter_of_an_hour():
    fine = {**FINE, "ran": 1000.0, "good": 1000.0, "stage": "", "reason": ""}
    assert canary.check(fine, SETTINGS, 1000.0 + 14 * 60)[0]
    good, sentence = canary.check(fine, SETTINGS, 1000.0 + 16 * 60)
    assert not good
    assert "depuis 16 min" in sentence
    assert "n'a encore jamais volé" in canary.check({}, SETTINGS, 0.0)[1]
    slowest = SETTINGS.minutes * 60 + 2 * canary.INSIST + SETTINGS.patience
    assert slowest < 15 * 60, "a fault that comes just after a flight"


def test_a_state_cut_short_is_none(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"ran": 1')
    assert canary.read(path) == {}
