# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""From findings to sentences: what `infini verify`, the watch's mails and its page say.

Sentences are English msgids; `src/infini/locale/fr/LC_MESSAGES/infini.po` says them in French. A mend is a command and
is not translated.
"""

from __future__ import annotations

import gettext
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .probes import Finding, fine

Translations = gettext.NullTranslations


def _(message: str) -> str:
    """Mark a message for extraction."""
    return message


@dataclass(frozen=True)
class Sentence:
    """How a code is said, and the command that mends it.

    `count` names the value that chooses between `says` and `plural`.
    """

    group: str
    says: str
    mend: str = ""
    plural: str = ""
    count: str = ""


@dataclass(frozen=True)
class Check:
    """One thing looked at on one host."""

    id: str
    host: str
    code: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return fine(self.code)

    @property
    def group(self) -> str:
        """The group's English name."""
        return SENTENCES[self.code].group


HOSTS, SITES, TLS = _("Hosts"), _("Sites"), _("Certificates and encryption")
NETWORK, SSH = _("Network"), _("SSH access")
SERVICES, SYSTEM, UPDATES = _("Services"), _("System"), _("Updates")
GROUPS = (HOSTS, SITES, TLS, NETWORK, SSH, SERVICES, SYSTEM, UPDATES)

APPLY = "./infini apply {playbook} -i {inventory}"
TOP = "{ssh} systemd-cgtop --iterations 1 --batch --order memory"
MASTERS = "{ssh} journalctl --since -1day --unit 'php*@{account}.service' --no-pager"
WARNINGS = "{ssh} journalctl --boot --priority warning --lines 50 --no-pager"

SENTENCES: Mapping[str, Sentence] = {
    "host.ok": Sentence(HOSTS, _("{host} answers.")),
    "host.unreached": Sentence(
        HOSTS, _("{host} does not answer over SSH: nothing could be looked at inside."), "ping -c 3 {address}"
    ),
    "host.unread": Sentence(
        HOSTS,
        _("{host} answers but could not be read: {reason}"),
        "./infini apply verify -i {inventory} --limit {host}",
    ),
    "page.ok": Sentence(SITES, _("{url} shows the expected page over {family}, in {milliseconds} ms.")),
    "page.shut.ok": Sentence(SITES, _("{url} refuses visitors as it should ({status}, {family}).")),
    "page.unreached": Sentence(SITES, _("{url} does not answer over {family}: {reason}."), f"{WARNINGS}\n{APPLY}"),
    "page.status": Sentence(
        SITES, _("{url} answers {status} instead of {expected} over {family}."), f"{WARNINGS}\n{APPLY}"
    ),
    "page.title": Sentence(
        SITES, _("{url} shows another page ({family}): its title is “{title}”, without “{text}”."), APPLY
    ),
    "page.text": Sentence(SITES, _("{url} shows another page ({family}): it does not hold “{text}”."), APPLY),
    "redirect.ok": Sentence(SITES, _("{url} leads to {to} ({family}).")),
    "redirect.unreached": Sentence(SITES, _("{url} does not answer over {family}: {reason}."), f"{WARNINGS}\n{APPLY}"),
    "redirect.code": Sentence(
        SITES, _("{url} leads on with the code {status} instead of {expected} ({family})."), APPLY
    ),
    "redirect.none": Sentence(SITES, _("{url} does not lead to {to}: it answers {status} ({family})."), APPLY),
    "redirect.elsewhere": Sentence(SITES, _("{url} leads to “{location}” instead of {to} ({family})."), APPLY),
    "tls.old.ok": Sentence(TLS, _("{name} refuses TLS {version}, too old to protect anyone ({family}).")),
    "tls.old.accepted": Sentence(
        TLS, _("{name} still accepts TLS {version}, which protects nobody ({family})."), APPLY
    ),
    "tls.new.ok": Sentence(TLS, _("{name} accepts TLS {version} ({family}).")),
    "tls.new.refused": Sentence(TLS, _("{name} refuses TLS {version}: some visitors cannot come ({family})."), APPLY),
    "tls.http2.ok": Sentence(TLS, _("{name} offers HTTP/2 ({family}).")),
    "tls.http2.missing": Sentence(
        TLS, _("{name} does not offer HTTP/2, pages come slowly ({family}, offered: {protocol})."), APPLY
    ),
    "tls.unreached": Sentence(
        TLS, _("{name} does not answer on port {port} over {family}: {reason}."), f"{WARNINGS}\n{APPLY}"
    ),
    "certificate.ok": Sentence(
        TLS,
        _("The certificate of {name} is good for {days} more day ({family})."),
        plural=_("The certificate of {name} is good for {days} more days ({family})."),
        count="days",
    ),
    "certificate.ending": Sentence(
        TLS,
        _("The certificate of {name} ends in {days} day and was not renewed ({family})."),
        APPLY,
        plural=_("The certificate of {name} ends in {days} days and was not renewed ({family})."),
        count="days",
    ),
    "certificate.untrusted": Sentence(TLS, _("Browsers refuse the certificate of {name}: {reason} ({family})."), APPLY),
    "certificate.names": Sentence(TLS, _("The certificate of {name} lacks these names: {missing} ({family})."), APPLY),
    "certificate.unreached": Sentence(
        TLS, _("The certificate of {name} cannot be read over {family}: {reason}."), f"{WARNINGS}\n{APPLY}"
    ),
    "port.ok": Sentence(NETWORK, _("Port {port} of {host} ({service}) is open over {family}, as declared.")),
    "port.closed": Sentence(
        NETWORK,
        _("Port {port} of {host} ({service}) should be open over {family} and is not."),
        f"{APPLY}\n./infini apply base -i {{inventory}}",
    ),
    "ports.ok": Sentence(NETWORK, _("No other port of {host} is open over {family} ({tried} tried).")),
    "ports.undeclared": Sentence(
        NETWORK,
        _("Ports of {host} are open over {family} and no service card declares them: {ports}."),
        "{ssh} ss --tcp --listening --numeric --processes\n./infini apply base -i {inventory}",
    ),
    "tcp.ok": Sentence(NETWORK, _("Port {port} of {host} greets as it should ({family}).")),
    "tcp.unreached": Sentence(
        NETWORK, _("Port {port} of {host} does not answer over {family}: {reason}."), f"{WARNINGS}\n{APPLY}"
    ),
    "tcp.greeting": Sentence(
        NETWORK, _("Port {port} of {host} greets with “{greeting}” instead of “{starts}” ({family})."), APPLY
    ),
    "ssh.ok": Sentence(SSH, _("SSH on {host} follows ssh-audit's strict rules for Debian {release}.")),
    "ssh.untested.ok": Sentence(
        SSH,
        _("SSH on {host} answers; its strength is unknown: ssh-audit has no recent rules for Debian {release} here."),
    ),
    "ssh.weak": Sentence(
        SSH,
        _("SSH on {host} is weaker than ssh-audit's rules for Debian {release}: {fields}."),
        'ssh-audit -P "{policy}" -p {port} {address}\n' + APPLY,
    ),
    "ssh.unreached": Sentence(SSH, _("SSH on {host} does not answer on port {port}: {reason}."), "ping -c 3 {address}"),
    "unit.ok": Sentence(SERVICES, _("{unit} runs on {host}.")),
    "unit.down": Sentence(
        SERVICES,
        _("{unit} does not run on {host} ({state})."),
        "{ssh} journalctl --unit {unit} --lines 30 --no-pager\n{ssh} systemctl restart {unit}",
    ),
    "unit.absent": Sentence(SERVICES, _("{unit} is not installed on {host}."), APPLY),
    "command.ok": Sentence(SERVICES, _("On {host}, “{command}” succeeds.")),
    "command.failed": Sentence(SERVICES, _("On {host}, “{command}” fails ({status}): {output}"), "{ssh} {command}"),
    "command.told.ok": Sentence(SERVICES, _("{output} (seen on {host})")),
    "command.told.failed": Sentence(SERVICES, _("{output} (seen on {host})"), "{ssh} {command}"),
    "failed.ok": Sentence(SERVICES, _("No service has failed on {host}.")),
    "failed.units": Sentence(
        SERVICES,
        _("Services have failed on {host}: {units}."),
        "{ssh} systemctl status --no-pager {unit}\n{ssh} systemctl restart {unit}",
    ),
    "mail.ok": Sentence(SERVICES, _("No message of the watch on {host} waits to be sent.")),
    "mail.refused": Sentence(
        SERVICES,
        _("Messages of the watch on {host} cannot be sent: {reason}"),
        "{ssh} journalctl --unit infini-watch.service --lines 30 --no-pager",
    ),
    "failed.unknown": Sentence(SERVICES, _("The services of {host} cannot be listed."), "{ssh} systemctl --failed"),
    "account.ok": Sentence(SYSTEM, _("The account {account} uses {percent} % of its limits on {host}.")),
    "account.near": Sentence(
        SYSTEM,
        _("The account {account} is at {percent} % of its limits on {host}: its sites will slow down or fail."),
        "{ssh} systemd-cgtop --iterations 1 --batch {slice}",
    ),
    "limit.killed": Sentence(
        SYSTEM,
        _("On {host}, {count} process of the account {account} was killed: it wanted more memory than allowed."),
        MASTERS,
        plural=_(
            "On {host}, {count} processes of the account {account} were killed: they wanted more memory than allowed."
        ),
        count="count",
    ),
    "limit.refused": Sentence(
        SYSTEM,
        _("On {host}, {count} process was refused to the account {account}: it had as many as it may have."),
        MASTERS,
        plural=_("On {host}, {count} processes were refused to the account {account}: it had as many as it may have."),
        count="count",
    ),
    "limit.full": Sentence(
        SYSTEM,
        _("On {host}, visitors of the account {account} had to wait {count} time: all its PHP was busy."),
        "{ssh} tail --lines 40 /srv/members/{account}/logs/php/*.slow.log",
        plural=_("On {host}, visitors of the account {account} had to wait {count} times: all its PHP was busy."),
        count="count",
    ),
    "quarantine.ok": Sentence(SITES, _("The settings of every site and account are in force on {host}.")),
    "quarantine.refused": Sentence(
        SITES,
        _("The settings of {name} are refused on {host}, {path} stands as before: {reason}"),
        "./infini apply web --check --diff -i {inventory}\n./infini apply web -i {inventory}",
    ),
    "clock.ok": Sentence(SYSTEM, _("The clock of {host} agrees with ours.")),
    "clock.off": Sentence(
        SYSTEM,
        _("The clock of {host} is {seconds} seconds away from ours."),
        "{ssh} chronyc makestep\n./infini apply base -i {inventory}",
    ),
    "clock.source.ok": Sentence(SYSTEM, _("The clock of {host} follows time servers.")),
    "clock.alone": Sentence(
        SYSTEM,
        _("The clock of {host} follows no time server."),
        "{ssh} chronyc sources\n{ssh} systemctl restart chrony.service",
    ),
    "disk.ok": Sentence(SYSTEM, _("{host} has room on {mount}: {percent} % used, {free_gb} GB free.")),
    "disk.full": Sentence(
        SYSTEM,
        _("{host} has hardly any room on {mount}: {percent} % used, {free_gb} GB free."),
        "{ssh} du --one-file-system --human-readable --max-depth 2 {mount}",
    ),
    "inodes.ok": Sentence(SYSTEM, _("{host} can still create files on {mount}: {inodes} % of inodes used.")),
    "inodes.full": Sentence(
        SYSTEM,
        _("{host} can hardly create files on {mount}: {inodes} % of inodes used."),
        "{ssh} du --one-file-system --inodes --max-depth 2 {mount}",
    ),
    "memory.ok": Sentence(SYSTEM, _("{host} has free memory: {percent} % used.")),
    "memory.low": Sentence(
        SYSTEM,
        _("{host} is short of memory: {percent} % used."),
        TOP,
    ),
    "pressure.ok": Sentence(SYSTEM, _("Nothing waits for memory on {host}.")),
    "pressure.high": Sentence(
        SYSTEM,
        _("Programs on {host} spend {pressure} % of their time waiting for memory."),
        TOP,
    ),
    "files.ok": Sentence(SYSTEM, _("{host} can open more files: {percent} % of the limit used.")),
    "files.near": Sentence(
        SYSTEM,
        _("{host} can hardly open any more files: {percent} % of the limit used."),
        "{ssh} sysctl fs.file-nr fs.file-max",
    ),
    "upgrades.ok": Sentence(UPDATES, _("No security update waits on {host}.")),
    "upgrades.pending": Sentence(
        UPDATES,
        _("{count} security update waits on {host}: {packages}."),
        "{ssh} unattended-upgrade --verbose",
        plural=_("{count} security updates wait on {host}: {packages}."),
        count="count",
    ),
    "upgrades.unknown": Sentence(
        UPDATES,
        _("The security updates that wait on {host} cannot be listed: {reason}."),
        "{ssh} apt-get --simulate dist-upgrade\n{ssh} dpkg --audit",
    ),
    "lists.ok": Sentence(UPDATES, _("{host} knows the latest updates.")),
    "lists.old": Sentence(
        UPDATES,
        _("{host} has not asked for updates in the last days: those it lacks are unknown."),
        "{ssh} apt-get update\n{ssh} systemctl restart apt-daily.timer",
    ),
    "reboot.ok": Sentence(UPDATES, _("{host} runs its newest kernel.")),
    "reboot.needed": Sentence(
        UPDATES, _("{host} must be restarted to run its newest kernel."), "{ssh} systemctl reboot"
    ),
}

REASONS: Mapping[str, str] = {
    "timeout": _("no answer in time"),
    "refused": _("connection refused"),
    "reset": _("connection cut"),
    "no_route": _("no way to this address"),
    "tls": _("no secure connection possible"),
    "not_http": _("what answers is not a web server"),
    "not_ssh": _("what answers is not SSH"),
    "expired": _("the certificate has expired"),
    "self_signed": _("the certificate is signed by nobody"),
    "unknown_authority": _("the certificate comes from an unknown authority"),
    "bad_name": _("no browser can ask for this name"),
    "name": _("the certificate belongs to another name"),
    "untrusted": _("the certificate cannot be trusted"),
}


def check_of(host: str, finding: Finding, about: Mapping[str, Any], address: str = "") -> Check:
    """Make a check from a finding; its identity does not depend on what was found."""
    kind = finding.code.partition(".")[0]
    where = "".join((f":{finding.subject}" if finding.subject else "", f"@{address}" if address else ""))
    return Check(f"{kind}:{host}{where}", host, finding.code, {**about, **finding.values, "host": host})


def _spoken(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def says(check: Check, translations: Translations) -> str:
    """Say a check in one sentence."""
    sentence = SENTENCES[check.code]
    values = {key: _spoken(value) for key, value in check.values.items()}
    phrase = REASONS.get(str(values.get("reason")))
    if phrase:
        values["reason"] = translations.gettext(phrase)
    if sentence.plural:
        text = translations.ngettext(sentence.says, sentence.plural, int(values[sentence.count]))
    else:
        text = translations.gettext(sentence.says)
    return text.format(**values)


def mend(check: Check) -> str:
    """Give the commands that mend a failed check, one a line."""
    own = check.values.get("mend")
    return str(own) if own else SENTENCES[check.code].mend.format(**check.values)


def group(checks: Iterable[Check]) -> dict[str, list[Check]]:
    """Group checks for reading: groups in their order, what failed first."""
    listed = sorted(checks, key=lambda check: (GROUPS.index(check.group), check.ok, check.host))
    grouped: dict[str, list[Check]] = {}
    for check in listed:
        grouped.setdefault(check.group, []).append(check)
    return grouped


def bundle(failed: Iterable[Check]) -> list[tuple[list[Check], list[str]]]:
    """Put failed checks that follow each other and have the same mend together: one cause, one mend to read."""
    bundles: list[tuple[list[Check], list[str]]] = []
    for check in failed:
        lines = mend(check).splitlines()
        if bundles and bundles[-1][1] == lines:
            bundles[-1][0].append(check)
        else:
            bundles.append(([check], lines))
    return bundles


def as_json(checks: Sequence[Check], translations: Translations) -> dict[str, Any]:
    """Give the object of `infini verify --json`."""
    return {
        "ok": all(check.ok for check in checks),
        "checks": len(checks),
        "failed": [
            {"host": check.host, "check": check.id, "says": says(check, translations), "mend": mend(check)}
            for check in checks
            if not check.ok
        ],
        "groups": {
            translations.gettext(name): {"checks": len(those), "failed": sum(not check.ok for check in those)}
            for name, those in group(checks).items()
        },
    }


def page_context(checks: Sequence[Check], translations: Translations, when: str) -> dict[str, Any]:
    """Give the values of the HTML page."""
    return {
        "when": when,
        "checks": len(checks),
        "failed": sum(not check.ok for check in checks),
        "groups": [
            {
                "name": translations.gettext(name),
                "total": len(those),
                "failed": [
                    {"says": [says(check, translations) for check in bundled], "mend": lines}
                    for bundled, lines in bundle(check for check in those if not check.ok)
                ],
                "fine": [says(check, translations) for check in those if check.ok],
            }
            for name, those in group(checks).items()
        ],
    }
