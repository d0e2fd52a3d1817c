# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""A panel written down: complete, and with nobody's names in it where that is asked."""

from __future__ import annotations

import json
import re
from collections import Counter

import alternc_world as world
from ansible.module_utils.hosting.alternc_data import parse
from ansible.module_utils.hosting.alternc_export import KEPT, anonymise, counts, export
from hypothesis import given
from hypothesis import strategies as st

PANEL = parse(world.answer())
TARGETS = {name: target for name, (target, *_rest) in world.TYPES.items()}


def test_hashes_only_on_demand():
    assert "$6$" not in json.dumps(export(PANEL))
    assert "enclair" not in json.dumps(export(PANEL))
    told = export(PANEL, secrets=True)
    assert told["mailboxes"][1]["password_hash"] == "{SHA512-CRYPT}$6$a$b"
    assert told["databases"]["users"][0]["password"] == "enclair"
    assert "lxc_key" in told["variables"]
    assert "lxc_key" not in export(PANEL)["variables"]


def test_one_member_alone():
    data = export(PANEL, "velo")
    assert counts(data) == {
        "members": 1,
        "domains": 1,
        "subdomains": 4,
        "mailboxes": 2,
        "forwards": 2,
        "databases": 1,
        "database_users": 1,
        "ftp_accounts": 1,
    }
    assert "chorale" not in json.dumps(data)


def test_quotas_of_the_profile_are_not_repeated():
    assert export(PANEL)["quotas"]["members"] == {login: {"mysql": 1} for login in ("admin", "velo", "chorale")}


def test_the_same_name_becomes_the_same_everywhere():
    data = anonymise(export(PANEL), TARGETS, b"salt")
    login = data["databases"]["users"][0]["member"]
    assert login in {row["login"] for row in data["members"]}
    assert data["databases"]["users"][0]["databases"] == [login]
    assert data["ftp_accounts"][0]["name"].startswith(f"{login}_")
    names = {row["name"] for row in data["domains"]}
    assert all(name.endswith(".test") for name in names)
    assert {row["address"].split("@")[1] for row in data["mailboxes"]} < names
    url = next(row for row in data["subdomains"] if row["type"] == "url")
    assert url["value"] == f"http://www.{url['domain']}"


def test_another_key_makes_other_names():
    assert anonymise(export(PANEL), TARGETS, b"one") == anonymise(export(PANEL), TARGETS, b"one")
    assert anonymise(export(PANEL), TARGETS, b"one") != anonymise(export(PANEL), TARGETS, b"two")


def test_what_may_send_mail_stays_and_its_hosts_do_not():
    spf = "v=spf1 a:mail.velo.fr ip4:203.0.113.7/24 include:_spf.secretprovider.com -all"
    panel = parse(world.answer([*world.rows(), world.sub("velo.fr", "", "txt", spf)]))
    values = [row["value"] for row in anonymise(export(panel), TARGETS, b"s")["subdomains"]]
    (found,) = [value for value in values if "include" in value]
    assert re.fullmatch(
        r"v=spf1 a:mail\.\w{4}\.test ip4:198\.1[89]\.\d+\.\d+/24 include:_\w{3}\.\w{14}\.test -all", found
    )


def test_two_domains_of_one_label_stay_two_and_a_part_stays_a_part():
    them = [*world.rows(), world.domain("velo.org", 2002), world.domain("brest.velo.fr", 2002)]
    names = [row["name"] for row in anonymise(export(parse(world.answer(them))), TARGETS, b"s")["domains"]]
    assert len(set(names)) == 4
    assert [len(name) for name in sorted(names, key=len)] == [9, 9, 12, 15]
    assert sum(one.endswith(f".{other}") for one in names for other in names) == 1


def logins(*names):
    them = [world.member(2001 + index, name, name="", first_name="", mail="") for index, name in enumerate(names)]
    return [row["login"] for row in anonymise(export(parse(world.answer(them))), TARGETS, b"salt")["members"]]


def test_no_two_become_one():
    names = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert len(set(logins(*names))) == len(names)


def test_a_name_that_somebody_bears_is_given_to_nobody():
    (given_name,) = logins("amicale")
    assert all(given_name[:4] not in name for name in logins("amicale", given_name))


WORDS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789"), min_size=1, max_size=14)
PANELS = st.tuples(WORDS, WORDS, WORDS, WORDS, st.text(max_size=20), WORDS)


def strings(value):
    if isinstance(value, dict):
        return [text for one in (*value.values(), *value) for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


@given(PANELS, st.binary(min_size=8, max_size=8))
def test_nothing_of_anybody_survives_and_nothing_is_lost(words, salt):
    login, label, tld, local, notes, text = words
    name = f"{label}.{tld}"
    them = [
        world.member(2001, login, name=text, first_name=local, mail=f"{local}@{name}", notes=notes),
        world.member(2002, f"{login}x", mail=""),
        world.domain(name, 2001),
        world.sub(name, local, "txt", text),
        world.sub(name, "", "url", f"https://{local}.{name}/{text}?a={label}"),
        world.sub(name, "", "mx", f"mx.{label}.{tld}."),
        world.sub(name, "www", "vhost", f"/www/{label}"),
        world.box(1, local, name, mailbox=1, quota_mb=3),
        world.row("recipients", id=1, forwards=f"{text}@{name}"),
        world.row("databases", name=f"{login}_{text}", uid=2001),
        world.row(
            "ftp_accounts",
            name=f"{name}_{text}",
            uid=2001,
            directory=f"/x/{login[0]}/{login}/{label}",
            enabled=1,
            hash="",
        ),
    ]
    data = export(parse(world.answer(them)))
    hidden = anonymise(data, TARGETS, salt)
    assert counts(hidden) == counts(data)
    for kind, field in (("members", "enabled"), ("subdomains", "type"), ("mailboxes", "quota_mb"), ("domains", "mail")):
        assert Counter(str(row[field]) for row in hidden[kind]) == Counter(str(row[field]) for row in data[kind])
    assert len({row["login"] for row in hidden["members"]}) == 2
    told = re.findall(r"[a-z0-9]+", " ".join([login, label, tld, local, notes, text]).lower())
    runs = {word[i : i + 4] for word in told if word not in KEPT for i in range(len(word) - 3)}
    left = " ".join(strings({kind: rows for kind, rows in hidden.items() if kind != "variables"})).lower()
    structure = {*KEPT, "https", "http", "vhost", "mx", "members", "enabled", "admin", "profile", "notes", "duration"}
    structure |= {key for kind in data.values() for row in (kind if isinstance(kind, list) else []) for key in row}
    structure |= {"defaults", "databases", "users", *data}
    survived = {run for run in runs if run in left and not any(run in word for word in structure)}
    assert not survived
