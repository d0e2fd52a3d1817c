# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crowds that the front meets, played from many addresses: people, the programs that serve them, and robots.

Everything is generated from a seed; nothing was recorded from anybody. The shapes follow what operators published:

- named robots: few networks, many requests on kept connections, straight through listings (GPTBot and ClaudeBot over
  100 requests a second: alphagov/govuk-infrastructure#4519; ClaudeBot a quarter of all: Gluejar/regluit#1172);
- disguised robots: hundreds of networks, one or two requests each, the User-Agent of Chrome or Firefox and none of the
  headers that these send (operators of iocaine turned nearly 30 million requests away by that test alone);
- greedy robots: all the headers of a browser, many addresses of one network, deep into listings, sorts and calendars
  (Wikimedia: robots are 35 % of page views and 65 % of the most expensive traffic);
- patient robots: all the headers of a browser, one request for each of many networks ("millions of addresses", LWN).
  Nothing here tells them from people; the number of requests of a site at the same time is what holds them.

How many of each there are is our choice (PLAYED). People: pages with all their files, a school behind one address,
editors, feed readers, the CMS's own cron, WebDAV and calendars, uptime monitors, old and textual browsers, search
engines and previews of shared links.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

# For benchmarks (RFC 2544) and for documentation (RFC 3849): nobody's. Ours while a crowd plays, each address of them.
IPV4, IPV6 = "198.18.0.0/15", "2001:db8::/32"
IP_FREEBIND = 15  # Linux: an address of a local route needs no interface

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/{{}}.0.0.0 Safari/537.36"
ANDROID = f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Chrome/131.0.0.0 Mobile Safari/537.36"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0"
IOS = "Mozilla/5.0 (iPhone; CPU iPhone OS {} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
SAFARI = IOS.format("18_1") + " Version/18.1 Mobile/15E148 Safari/604.1"
NAVIGATION = {
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
}
COMPATIBLE = "Mozilla/5.0 (compatible; {})"
EVERGREEN = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; {}) Chrome/131.0.0.0 Safari/537.36"

NAMED = ("GPTBot/1.3", "ClaudeBot/1.0", "Amazonbot/0.1", "meta-externalagent/1.1", "CCBot/2.0", "Bytespider")
OBEDIENT = ("AhrefsBot/7.0", "SemrushBot/7~bl", "MJ12bot/v1.4.8", "DotBot/1.2", "Barkrowler/0.9")
PLAYED = {"named": 300, "disguised": 450, "greedy": 1400, "patient": 150}

FEED_READERS = (
    "FreshRSS/1.24.3 (Linux; https://freshrss.org)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.5.0",
    "Feedly/1.0 (+https://feedly.com/f.html; like FeedFetcher-Google)",
    "NetNewsWire (RSS Reader; https://netnewswire.com/)",
    CHROME.format(131),  # a reader that lies, as many do: feeds are never judged
)
FEEDS = (
    "/feed/",
    "/?feed=rss2",
    "/spip.php?page=backend",
    "/comments/feed/",
    "/rss.xml",
    "/agenda.ics",
    "/wp-json/wp/v2/posts?per_page=5",
)
MONITORS = (
    "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    "Uptime-Kuma/1.23.16",
    "check_http/v2.3.3 (monitoring-plugins 2.3.3)",
    "infini-verify",
    "curl/7.88.1",
    "",
)
OLD_BROWSERS = (
    FIREFOX.format(52),
    FIREFOX.format(78),
    CHROME.format(49),
    "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
    IOS.format("12_5") + " Version/12.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Goanna/6.7 Firefox/128.0 PaleMoon/33.5.0",
    f"Mozilla/5.0 (Linux; Android 9; CUBOT X19; wv) {WEBKIT} Version/4.0 Chrome/131.0.0.0 Mobile Safari/537.36",
)
TEXT_BROWSERS = (
    "Lynx/2.9.0dev.12 libwww-FM/2.14",
    "w3m/0.5.3+git20230121",
    "ELinks/0.16.1.1 (textmode; Linux; 80x24-2)",
    "NetSurf/3.11 (Linux)",
)
WELCOME_ROBOTS = (
    COMPATIBLE.format("Googlebot/2.1; +http://www.google.com/bot.html"),
    EVERGREEN.format("Googlebot/2.1; +http://www.google.com/bot.html"),
    EVERGREEN.format("bingbot/2.0; +http://www.bing.com/bingbot.htm"),
    COMPATIBLE.format("Qwantbot/1.0; +https://help.qwant.com/bot/"),
    COMPATIBLE.format("archive.org_bot +http://archive.org/details/archive.org_bot"),
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mastodon/4.3.1 (http.rb/5.2.0; +https://mamot.example/) Bot",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
)
DAV = (
    ("davfs2/1.6.1 neon/0.32.4", ("PROPFIND", "PUT", "GET", "LOCK")),
    ("Mozilla/5.0 (Linux) mirall/3.14.1 (Nextcloud)", ("PROPFIND", "GET", "MKCOL")),
    ("DAVx5/4.4.3-ose (2024/11/01; dav4jvm; okhttp/4.12.0) Android/14", ("PROPFIND", "REPORT", "GET")),
)

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Ask:
    """One request."""

    path: str
    headers: Headers = field(default_factory=dict)
    method: str = "GET"


@dataclass(frozen=True)
class Visit:
    """What one address asks of one site, on one connection, with a pause before each request."""

    group: str
    source: str
    site: str
    asks: Sequence[Ask]
    pause: float = 0.0
    files: bool = False
    """Whether a page's own files are fetched too, as a browser does."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended. What the front refuses carries no Server header; Apache's own refusals do."""

    group: str
    path: str
    status: int
    refused: bool
    headers: Headers
    text: str


@contextmanager
def many_addresses() -> Iterator[None]:
    """Make both blocks ours for a while; the hosts of the bench answer to this machine by their default route."""
    routes = (["ip", "route"], IPV4), (["ip", "-6", "route"], IPV6)
    for command, block in routes:
        subprocess.run([*command, "replace", "local", block, "dev", "lo"], check=True)
    try:
        yield
    finally:
        for command, block in routes:
            subprocess.run([*command, "del", "local", block, "dev", "lo"], check=True)


class Client(http.client.HTTPSConnection):
    """A connection to the front from an address of our choice, without DNS."""

    def __init__(self, addresses: Sequence[str], visit: Visit, context: ssl.SSLContext) -> None:
        super().__init__(visit.site, context=context, timeout=60)
        self.front = next(address for address in addresses if (":" in address) == (":" in visit.source))
        self.visit, self.tls = visit, context

    def connect(self) -> None:
        """Open the connection."""
        line = socket.socket(socket.AF_INET6 if ":" in self.front else socket.AF_INET)
        line.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        line.settimeout(self.timeout)
        line.bind((self.visit.source, 0))
        line.connect((self.front, 443))
        self.sock = self.tls.wrap_socket(line, server_hostname=self.visit.site)


OWN_FILE = re.compile(r"""<(?:link|script|img)[^>]+(?:href|src)=["']([^"'#]+)""")


class Crowd:
    """Plays visits against the front."""

    def __init__(self, addresses: Sequence[str], authorities: str) -> None:
        self.addresses = addresses
        self.context = ssl.create_default_context(cafile=authorities)

    def play(self, visits: Iterable[Visit], hands: int) -> list[Outcome]:
        """Play the visits, as many at the same time as there are hands."""
        with ThreadPoolExecutor(hands) as pool:
            return [outcome for outcomes in pool.map(self._visit, visits) for outcome in outcomes]

    def _visit(self, visit: Visit) -> list[Outcome]:
        client = Client(self.addresses, visit, self.context)
        outcomes = []
        try:
            for ask in visit.asks:
                time.sleep(visit.pause)
                outcomes.append(self._ask(client, ask))
                for path in files_of(outcomes[-1].text, visit.site) if visit.files else ():
                    headers = {**ask.headers, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
                    outcomes.append(self._ask(client, Ask(path, headers)))
        finally:
            client.close()
        return outcomes

    def _ask(self, client: Client, ask: Ask) -> Outcome:
        client.putrequest(ask.method, ask.path, skip_accept_encoding=True)
        for name, value in ask.headers.items():
            if value:
                client.putheader(name, value)
        if ask.method in ("POST", "PUT"):
            client.putheader("Content-Length", "0")
        client.endheaders()
        answer = client.getresponse()
        text = answer.read().decode(errors="replace")
        refused = answer.status in (403, 429, 503) and not answer.headers["Server"]
        return Outcome(client.visit.group, ask.path, answer.status, refused, answer.headers, text)


def files_of(text: str, site: str) -> list[str]:
    """Return the paths of a page's own files, each once."""
    found = [path.replace("&amp;", "&").removeprefix(f"https://{site}") for path in OWN_FILE.findall(text)]
    return list(dict.fromkeys(f"/{path.lstrip('/')}" for path in found if "//" not in path))


def browser(user_agent: str) -> dict[str, str]:
    """Return what a current browser sends when somebody opens a page."""
    return {"User-Agent": user_agent, "Accept": "text/html,*/*;q=0.8", "Accept-Language": "fr,en;q=0.5", **NAVIGATION}


def listing(dice: random.Random) -> str:
    """Return an expensive address, as robots find them without end."""
    number = dice.randrange(10_000)
    return dice.choice(
        (
            f"/?debut_articles={number}",
            f"/?s=mot{number}",
            f"/?paged={number}&orderby=date",
            f"/?annee={number}&mois=3",
            f"/agenda/{number}",
        )
    )


def robots(seed: int, site: str, played: Mapping[str, int] = PLAYED) -> list[Visit]:
    """Return the robots' visits, shuffled; the named ones were told by robots.txt and read on all the same."""
    dice = random.Random(seed)  # noqa: S311  shapes, not secrets

    def listings(headers: Headers, count: int) -> list[Ask]:
        return [Ask(listing(dice), headers) for _ in range(count)]

    visits = []
    for number, name in enumerate(NAMED):
        headers = {"User-Agent": COMPATIBLE.format(f"{name}; +https://robot.example")}
        asks = [listings(headers, played["named"] // len(NAMED) // 2) for _ in range(2)]
        visits += [Visit("named", f"198.18.{number}.{hand}", site, some) for hand, some in enumerate(asks, 1)]
    left, network = played["disguised"], 0
    while left > 0:
        network += 1
        headers = {"User-Agent": dice.choice((CHROME, FIREFOX)).format(dice.randrange(110, 140)), "Accept": "*/*"}
        source = f"198.19.{network % 250}.{network // 250 + 7}" if network % 4 else f"2001:db8:{network:x}::7"
        visits.append(Visit("disguised", source, site, listings(headers, min(left, dice.randint(1, 2)))))
        left -= len(visits[-1].asks)
    for hand in range(40):
        headers = browser(CHROME.format(dice.randrange(125, 135)))
        sources = (f"198.18.100.{hand + 1}", f"2001:db8:fade:{hand:x}::1")
        visits += [Visit("greedy", source, site, listings(headers, played["greedy"] // 80)) for source in sources]
    for number in range(played["patient"]):
        headers = browser(FIREFOX.format(dice.randrange(128, 134)))
        source = f"198.18.{number + 101}.{dice.randrange(1, 250)}"
        visits.append(Visit("patient", source, site, listings(headers, 1)))
    dice.shuffle(visits)
    return visits


def people(seed: int, spip: str, wordpress: str, static: str) -> list[Visit]:
    """Return the visits of people and of the programs that serve them, shuffled; robots use other networks."""
    dice = random.Random(seed)  # noqa: S311  shapes, not secrets
    sources = iter(f"198.19.{250 + number // 200}.{number % 200 + 1}" for number in range(1000))
    pages = {
        spip: ("/", "/spip.php?article1", "/spip.php?page=recherche&recherche=velo"),
        wordpress: ("/", "/?p=1", "/?s=tomate"),
        static: ("/",),
    }
    visits = [
        Visit("reader", next(sources), site, [Ask(path, browser(agent)) for path in paths], pause=1, files=True)
        for agent in (CHROME.format(131), ANDROID, FIREFOX.format(133), SAFARI)
        for site, paths in pages.items()
    ]
    for _ in range(25):
        headers = browser(dice.choice((CHROME.format(131), FIREFOX.format(128))))
        asks = [Ask(path, headers) for path in ("/?p=1", "/?page_id=2", "/?s=jardin")]
        visits.append(Visit("school", "198.19.255.9", wordpress, asks, pause=3))
    visits += editors(sources, spip, wordpress)
    visits += programs(sources, spip, wordpress, static)
    others = {
        "monitor": MONITORS,
        "old browser": OLD_BROWSERS,
        "text browser": TEXT_BROWSERS,
        "search engine, preview": WELCOME_ROBOTS,
    }
    for group, agents in others.items():
        method = "HEAD" if group == "monitor" else "GET"
        visits += [
            Visit(group, next(sources), site, [Ask(path, {"User-Agent": agent}, method) for path in paths], pause=0.2)
            for agent in agents
            for site, paths in pages.items()
        ]
    dice.shuffle(visits)
    return visits


def editors(sources: Iterator[str], spip: str, wordpress: str) -> list[Visit]:
    """Return people at work in the back office of their CMS: all queries, one after the other."""
    here = {**browser(FIREFOX.format(133)), "Cookie": "wordpress_logged_in_0=redac; wp-settings-1=editor"}
    paths = ("post.php?post=1&action=edit", "edit.php?post_type=page&paged=2", "upload.php?mode=grid")
    editing = [Ask(f"/wp-admin/{path}", here) for path in paths]
    editing.append(Ask("/wp-admin/admin-ajax.php?action=heartbeat", here, "POST"))
    there = {**browser(CHROME.format(131)), "Cookie": "spip_session=1_abc"}
    whats = ("article", "article_edit", "articles", "rubriques")
    writing = [Ask(f"/ecrire/?exec={what}&id_article=1", there) for what in whats]
    return [
        Visit("editor", next(sources), wordpress, editing * 6, pause=0.3),
        Visit("editor", next(sources), spip, writing * 6, pause=0.3),
    ]


def programs(sources: Iterator[str], spip: str, wordpress: str, static: str) -> list[Visit]:
    """Return the programs that read and write on behalf of people, and the CMS's own cron."""
    visits = [
        Visit("feed reader", next(sources), site, [Ask(path, {"User-Agent": agent}) for path in FEEDS])
        for agent in FEED_READERS
        for site in (spip, wordpress)
    ]
    for agent in ("WordPress/6.1; https://jardin.test", CHROME.format(131), "Wget/1.21.3"):
        headers = {"User-Agent": agent}
        path = "/wp-cron.php?doing_wp_cron=1732262400.1"
        asks = [Ask(path, headers, method) for method in ("GET", "POST")] * 3
        visits.append(Visit("cron", next(sources), wordpress, asks))
        visits.append(Visit("cron", next(sources), spip, [Ask("/spip.php?action=cron", headers)] * 6))
    for agent, methods in DAV:
        headers = {"User-Agent": agent, "Depth": "1"}
        asks = [Ask(f"/dav/{number}.ics", headers, methods[number % len(methods)]) for number in range(60)]
        visits.append(Visit("dav", next(sources), static, asks))
    return visits


def shares(outcomes: Iterable[Outcome]) -> dict[str, tuple[int, int]]:
    """Return group -> requests, refused ones."""
    found: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        asked, refused = found.get(outcome.group, (0, 0))
        found[outcome.group] = asked + 1, refused + outcome.refused
    return dict(sorted(found.items()))
