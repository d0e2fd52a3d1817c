# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
import re
import string

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from hosting import findings
from hosting.findings import SENTENCES, Check
from hosting.probes import Finding, Probe
from infini import ROOT
from infini.locale import DIRECTORY, catalogue
from infini.phrase import Phrase, said

FRENCH = catalogue("fr")
SOURCES = {
    "src/infini": [
        ("backups/**.py", "python"),
        ("backups/**.jinja", "jinja2"),
        ("verify/**.py", "python"),
        ("verify/**.jinja", "jinja2"),
        ("domains/**.py", "python"),
        ("domains/**.jinja", "jinja2"),
    ],
    "module_utils": [("**.py", "python")],
}


def texts(message_id):
    return message_id if isinstance(message_id, tuple) else (message_id,)


def messages_in_code():
    """Give every text that is marked for translation."""
    keywords = {"_": None, "gettext": None, "ngettext": (1, 2), "Phrase": None}
    found = [
        message
        for folder, methods in SOURCES.items()
        for _, _, message, _, _ in extract_from_dir(str(ROOT / folder), methods, keywords=keywords)
    ]
    return {text for message in found for text in texts(message)}


def messages_in_french():
    with (DIRECTORY / "fr/LC_MESSAGES/infini.po").open("rb") as source:
        return [message for message in read_po(source, locale="fr") if message.id]


def fields(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_the_french_catalogue_says_what_the_code_says():
    held = {text for message in messages_in_french() for text in texts(message.id)}
    assert messages_in_code() - held == set(), "infini.po lacks them"
    assert held - messages_in_code() == set(), "infini.po holds them, and nobody says them"
    assert len(held) > 100


@pytest.mark.parametrize("message", messages_in_french(), ids=lambda message: texts(message.id)[0])
def test_every_message_is_translated(message):
    for text in texts(message.string):
        assert text
        assert not message.fuzzy
        assert fields(text) <= fields(" ".join(texts(message.id)))
        assert not re.search(r"\bde \{(host|name)\}", text), "« de anatole »: write around it"
        assert not re.search(r"\w[:;!?]( |$)|\.\.\.", text), "French puts a space before : ; ! ?"


SAMPLE = {
    "host": "web",
    "url": "https://velo.test/",
    "name": "velo.test",
    "reason": "timeout",
    "playbook": "web",
    "inventory": "staging",
    "address": "192.0.2.10",
    "ssh": "ssh root@192.0.2.10",
    "days": 3,
    "count": 2,
    "packages": ["openssl", "libssl3"],
}


@pytest.mark.parametrize("code", SENTENCES)
def test_every_sentence_and_mend_is_complete(code):
    names = fields(SENTENCES[code].says) | fields(SENTENCES[code].mend)
    check = Check("x", "web", code, {**dict.fromkeys(names, "…"), **SAMPLE})
    assert "{" not in findings.says(check, FRENCH)
    assert "{" not in findings.mend(check)
    assert bool(SENTENCES[code].mend) is not check.ok, "what fails has a mend, what is well has none"


def test_reasons_and_plurals_are_said():
    unreached = Check("x", "web", "page.unreached", {**SAMPLE, "family": "IPv6"})
    assert findings.says(unreached, FRENCH) == "https://velo.test/ ne répond pas en IPv6 : pas de réponse à temps."
    ending = {**SAMPLE, "family": "IPv4"}
    assert "dans 1 jour " in findings.says(Check("x", "web", "certificate.ending", {**ending, "days": 1}), FRENCH)
    assert "dans 9 jours " in findings.says(Check("x", "web", "certificate.ending", {**ending, "days": 9}), FRENCH)
    assert findings.says(Check("x", "web", "upgrades.pending", SAMPLE), FRENCH).endswith("openssl, libssl3.")


def test_an_unknown_reason_is_said_as_it_is():
    check = Check("x", "web", "host.unread", {**SAMPLE, "reason": "no python3 {here}"})
    assert findings.says(check, FRENCH).endswith("no python3 {here}")


def test_a_card_may_bring_its_own_mend():
    assert findings.mend(Check("x", "web", "page.text", {**SAMPLE, "mend": "call the member"})) == "call the member"


def test_identities_do_not_depend_on_what_was_found():
    probe = Probe("page", "web", "192.0.2.10", {"url": "https://velo.test/"})
    good, bad = Finding("https://velo.test/", "page.ok"), Finding("https://velo.test/", "page.status")
    identities = {findings.check_of("web", one, {}, probe.address).id for one in (good, bad)}
    assert identities == {"page:web:https://velo.test/@192.0.2.10"}


def test_neighbours_with_one_mend_are_told_together():
    about = {**SAMPLE, "family": "IPv4", "status": 503, "expected": 200}
    checks = [Check(f"page:{number}", "web", "page.status", about) for number in (1, 2)]
    checks.append(Check("page:3", "web", "page.status", {**about, "playbook": "lists"}))
    bundles = findings.bundle(checks)
    assert [[check.id for check in those] for those, _ in bundles] == [["page:1", "page:2"], ["page:3"]]
    assert bundles[0][1][-1] == "./infini apply web -i staging"


def test_a_phrase_is_english_until_it_is_said():
    inner = Phrase("somebody else")
    phrase = Phrase(
        "{domain} is in the hands of {holder}: wait for the end, then try again", domain="a.test", holder=inner
    )
    assert phrase == "a.test is in the hands of somebody else: wait for the end, then try again"
    assert said(phrase, "en") == phrase
    assert (
        said(phrase)
        == "a.test est entre les mains d'une autre personne (nom inconnu) : attendez la fin, puis réessayez"
    )
    assert said("no phrase {at} all") == "no phrase {at} all"
