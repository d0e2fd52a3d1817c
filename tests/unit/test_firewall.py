# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the ports of service cards to nftables rules."""

from __future__ import annotations

import pytest

from hosting.firewall import destinations, openings, outgoing, reservations, rules

PEERS = {"web": ["192.0.2.10", "2001:db8::10"], "watchers": ["192.0.2.20"]}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"port": 443, "from": "any"}, ["tcp dport 443 accept"]),
        ({"port": "60000-61000", "protocol": "udp", "from": "any"}, ["udp dport 60000-61000 accept"]),
        (
            {"port": 3306, "from": ["web"]},
            ["ip saddr { 192.0.2.10 } tcp dport 3306 accept", "ip6 saddr { 2001:db8::10 } tcp dport 3306 accept"],
        ),
        (
            {"port": 1, "from": ["198.51.100.0/24", "watchers", "192.0.2.20"]},
            ["ip saddr { 192.0.2.20, 198.51.100.0/24 } tcp dport 1 accept"],
        ),
        ({"port": 1, "from": []}, []),
    ],
)
def test_rules(entry, expected):
    assert rules(entry, PEERS) == expected


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"port": 1, "from": ["nobody"]}, "nobody is neither an address nor a host or group"),
        ({"port": 70000, "from": "any"}, "70000 is not a port"),
        ({"port": "22; accept", "from": "any"}, "is not a port"),
    ],
)
def test_nonsense_is_refused(entry, sentence):
    with pytest.raises(ValueError, match=sentence):
        rules(entry, PEERS)


def test_ssh_is_left_to_rules_of_its_own():
    ports = [
        {"port": 22, "protocol": "tcp", "from": "any", "service": "base"},
        {"port": 80, "from": "any", "service": "front"},
    ]
    assert openings(ports, {}) == [{"service": "front", "rules": ["tcp dport 80 accept"]}]


def test_a_port_between_services_is_refused_to_people():
    reserved = [
        {"name": "local", "address": "127.0.0.1", "port": 8080},
        {"address": "2001:db8::12", "port": "8080-8081"},
    ]
    assert reservations(reserved) == [
        "ip daddr 127.0.0.1 tcp dport 8080 meta skuid >= 1000 reject with tcp reset",
        "ip6 daddr 2001:db8::12 tcp dport 8080-8081 meta skuid >= 1000 reject with tcp reset",
    ]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"address": "localhost", "port": 8080}, "localhost is not an IP address"),
        ({"address": "127.0.0.1", "port": 0}, "0 is not a port"),
    ],
)
def test_a_reserved_port_that_is_none_is_refused(entry, sentence):
    with pytest.raises(ValueError, match=sentence):
        reservations([entry])


def test_an_account_gets_out_where_it_says():
    accounts = [
        {"name": "velo", "outgoing": [{"port": 993}, {"port": "8000-8010", "protocol": "udp"}]},
        {"name": "chorale", "outgoing": [{"port": 5432, "to": ["192.0.2.7", "2001:db8::/32"]}]},
        {"name": "bourg"},
    ]
    assert outgoing(accounts) == [
        'meta skuid "velo" tcp dport 993 accept',
        'meta skuid "velo" udp dport 8000-8010 accept',
        'meta skuid "chorale" ip daddr { 192.0.2.7 } tcp dport 5432 accept',
        'meta skuid "chorale" ip6 daddr { 2001:db8::/32 } tcp dport 5432 accept',
    ]


@pytest.mark.parametrize("entry", [{"port": "1; accept"}, {"port": 1, "to": ["0.0.0.0/0 } accept"]}, {"port": "1-"}])
def test_nothing_is_let_out_by_a_line_that_says_more(entry):
    with pytest.raises(ValueError, match=r"is (not a port|neither an address)"):
        outgoing([{"name": "velo", "outgoing": [entry]}])


def test_resolvers_are_matched_by_family():
    assert destinations(["192.0.2.53", "2001:db8::53"]) == ["ip daddr { 192.0.2.53 }", "ip6 daddr { 2001:db8::53 }"]
    assert destinations([]) == []
