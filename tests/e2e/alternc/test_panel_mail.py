# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail where AlternC has the mailboxes, as members, strangers and thieves meet it, by protocol.

Two members, one domain each: `essai` with a mailbox that reads, one beside it, a small one, one that is shut, an alias
of both members and one that leads outside; `voisin` with a mailbox that takes all the rest of its domain.
"""

import contextlib
import email
import json
import os
import re
import shlex
import smtplib
import socket
import ssl
import time

import pytest
from mail_clients import Outside, Sieve, message, unique
from test_mail import GTUBE, MARKED, STRANGER, UPGRADES, Platform, refused, smuggle, told, upgraded

from hosting.probes import OLD_VERSIONS, accepts_old, client_hello
from infini.apply import playbook_path
from infini.runner import play

ADA, CLERK, BOB = "ada@essai.example", "secretaire@essai.example", "bob@voisin.example"
SMALL, SHUT = "petite@essai.example", "fermee@essai.example"
OFFICE, FAR, FEDERATION = "bureau@essai.example", "loin@essai.example", "federation@voisin.example"
PASSWORD = "Chat-noir-7-courrier"
BUDGET = "/etc/infini-mail-budget/config.json"
SEND = """<?php
$sent = 0;
for ($i = 0; $i < $_GET["n"]; $i++) {
    $sent += mail("{$_GET["run"]}-$i@dehors.test", "lettre", "Bonjour.", "From: ada@essai.example");
}
echo "sent ", $sent;
"""


class PanelMail(Platform):
    """The mail server that the panel is, and what its DNS says."""

    def __init__(self, inventory, panel):
        self.inventory, self.panel, self.host = inventory, panel, panel.connection.host
        self.name, self.address, self.password = self.get("mail_fqdn"), self.get("hosting_ipv4"), PASSWORD
        self.trust = self.trusting()

    def records(self, name, kind):
        """Answer as the DNS does; the host's own zone is elsewhere."""
        if name == self.name or name.endswith(f".{self.name}"):
            return super().records(name, kind)
        found = self.panel.answer(name, kind)
        return ["".join(re.findall('"(.*?)"', one)) for one in found] if kind == "TXT" else found


@pytest.fixture(scope="module")
def platform(inventory, panel):
    return PanelMail(inventory, panel)


@pytest.fixture(scope="module", autouse=True)
def mailboxes(panel, members):
    """Make the members' addresses as the panel's pages do."""
    ours, others = members
    made = panel.php(
        f"""
        function box($mail, $dom, $local, $quota, $to = "") {{
            $id = $mail->create($dom, $local);
            if ($quota !== false) $mail->set_passwd($id, "{PASSWORD}");
            $mail->set_details($id, $quota !== false, (int)$quota, $to);
            return $id;
        }}
        $mem->su({ours.uid}); $quota->setquota("mail", 20); $get_quota_cache = null;
        $dom1 = $dom->get_domain_byname("{ours.domain}");
        foreach (array("ada" => 0, "secretaire" => 0, "petite" => 1, "fermee" => 0) as $local => $size)
            $shut = box($mail, $dom1, $local, $size);
        $mail->disable($shut);
        box($mail, $dom1, "bureau", false, "{ADA}\\n{BOB}");
        box($mail, $dom1, "loin", false, "loin@dehors.test");
        $mem->unsu(); $mem->su({others.uid}); $quota->setquota("mail", 20); $get_quota_cache = null;
        $dom2 = $dom->get_domain_byname("{others.domain}");
        box($mail, $dom2, "bob", 0);
        box($mail, $dom2, "federation", false, "{ADA}");
        $mail->catchall_set($dom2, "{BOB}");
        echo json_encode(array($dom1, $dom2, said()));"""
    )
    try:
        assert all(made[:2]), made
        panel.run("alternc-apply now")
        names = [member.domain for member in members]
        assert panel.until(lambda: all(name in panel.run("cat /var/lib/infini/mail/records.zone") for name in names))
        yield
    finally:  # AlternC deletes no domain that has an address left
        for member in members:
            panel.php(
                f"""$mem->su({member.uid}); $id = $dom->get_domain_byname("{member.domain}"); $mail->catchall_del($id);
                foreach ($mail->enum_domain_mails($id, "", 0, -1) as $one) $mail->delete($one["id"]);
                echo json_encode(true);"""
            )
        panel.run("rm -f /run/alternc/jobs-lock; /usr/lib/alternc/update_mails.sh")


@pytest.fixture(scope="module")
def outside(platform):
    [relay] = [one["relay"] for one in platform.get("mail_slow_providers") if "dehors.test" in one["domains"]]
    address, _, port = relay.rpartition(":")
    with Outside(address.strip("[]"), int(port)).open() as server:
        platform.run("postqueue -f")
        yield server


@contextlib.contextmanager
def down(platform, unit):
    """Stop a service for a while; what needs it has come back at the end."""
    platform.run(f"systemctl stop {unit}")
    try:
        yield
    finally:
        platform.run(f"systemctl start {unit}")
        end = time.monotonic() + 120  # Postfix asks a database that was down again after a minute
        while not takes_mail(platform):
            assert time.monotonic() < end, f"after {unit} was down, no mail is taken any more"
            time.sleep(0.3)


def takes_mail(platform):
    with contextlib.suppress(OSError, smtplib.SMTPException), platform.smtp() as client:
        return told(client, STRANGER, ADA)[0] == 250
    return False


# --- sending and reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [465, 587, 25])
def test_mail_of_a_member_is_signed_by_the_key_that_alternc_publishes(platform, port):
    mail = message(ADA, BOB)
    with platform.smtp(port) as client:
        if port != 465:
            client.starttls(context=platform.trust)
        client.login(ADA, PASSWORD)
        client.send_message(mail)
    with platform.mailbox(BOB) as mailbox:
        raw = mailbox.wait(mail["Subject"])
    assert re.search(rb"DKIM-Signature:.*?d=essai\.example;[^:]*s=alternc", raw, re.DOTALL)
    assert raw.count(b"DKIM-Signature:") == 1, "two programs sign"
    assert platform.verified(raw)
    assert not platform.verified(raw.replace(b"Bonjour.", b"Au revoir.")), "this verification verifies nothing"


def test_what_a_stranger_writes_is_sealed_and_keeps_its_sender(platform):
    mail = message(STRANGER, ADA)
    with platform.smtp() as client:
        client.starttls(context=platform.trust)
        client.send_message(mail)
    with platform.mailbox(ADA) as mailbox:
        raw = mailbox.wait(mail["Subject"])
    sealed, reason = platform.sealed(raw)
    assert sealed == b"pass", reason
    assert raw.startswith(f"Return-Path: <{STRANGER}>".encode())
    [seen] = email.message_from_bytes(raw).get_all("Authentication-Results")
    assert seen.startswith(f"{platform.name};")


def test_aliases_extensions_and_catch_alls_are_those_of_the_panel(platform):
    subjects = {}
    for recipient in (OFFICE, ADA.replace("@", "+velo@"), f"{unique()}@voisin.example"):
        mail = message(STRANGER, recipient)
        with platform.smtp() as client:
            client.send_message(mail)
        subjects[recipient] = mail["Subject"]
    office, extension, rest = subjects.values()
    for who, some in ((ADA, (office, extension)), (BOB, (office, rest))):
        with platform.mailbox(who) as mailbox:
            for subject in some:
                mailbox.wait(subject)
    with platform.smtp() as client:
        assert told(client, STRANGER, f"{unique()}@essai.example")[0] == 550


def test_what_goes_on_outside_leaves_under_the_hosts_name_and_its_bounce_finds_back(platform, outside):
    mail = message(STRANGER, FAR)
    with platform.smtp() as client:
        client.send_message(mail)
    left = outside.wait("loin@dehors.test")
    assert re.fullmatch(rf"SRS0[=+-].*=dehors\.test=quelquun@{re.escape(platform.name)}", left.sender)
    with platform.smtp() as client:
        assert told(client, "", left.sender)[0] == 250
        client.sendmail("", [left.sender], message("mailer-daemon@dehors.test", left.sender).as_bytes())
    assert outside.wait(STRANGER).sender == ""
    assert (platform.verdicts(left)["spf"], platform.verdicts(left)["arc"]) == ("pass", "pass")


def test_a_strict_receiver_finds_nothing_wrong_with_mail_of_the_panels_members(platform, outside):
    recipient = f"{unique()}@dehors.test"
    platform.send(ADA, recipient)
    left = outside.wait(recipient)
    assert left.sender == ADA
    assert platform.verdicts(left) == {"spf": "pass", "dkim": "pass", "dmarc": "pass", "arc": "none"}


def test_a_domain_that_is_new_in_the_panel_signs_at_once(platform, panel, members):
    who = members[0]
    made = panel.php(
        f"""$mem->su({who.uid}); $dom->lock(); $dom->add_domain("neuf-essai.example", 1, 0, 1); $dom->unlock();
        $id = $mail->create($dom->get_domain_byname("neuf-essai.example"), "ada");
        $mail->set_passwd($id, "{PASSWORD}"); $mail->set_details($id, 1, 0, "");
        echo json_encode(array((bool)$id, said()));"""
    )
    assert made[0], made
    try:
        assert panel.until(lambda: panel.answer("alternc._domainkey.neuf-essai.example", "TXT"))
        signed = "/var/lib/infini/mail/dkim/neuf-essai.example.alternc.key"
        assert panel.until(lambda: panel.run(f"test -s {signed} && echo yes", check=False))
        subject = platform.send("ada@neuf-essai.example", BOB)
        with platform.mailbox(BOB) as mailbox:
            assert platform.verified(mailbox.wait(subject))
        assert "neuf-essai.example essai" in panel.run("cat /var/lib/infini/mail/accounts").splitlines()
    finally:
        panel.php(f'$mem->su({who.uid}); $dom->del_domain("neuf-essai.example"); echo json_encode(true);')
        panel.run("alternc-apply now; /usr/lib/alternc/update_mails.sh; alternc-apply now", check=False)
    look = f"infini-mail-panel follow; ls {signed}"
    assert panel.until(lambda: not panel.run(look, check=False)), "who leaves is signed for"


# --- who may do what ------------------------------------------------------------------------------------------------


def test_nobody_relays_through_the_panel(platform):
    for sender in (STRANGER, ""):
        with platform.smtp() as client:
            assert told(client, sender, "victime@ailleurs.example")[0] == 554


def test_no_second_message_hides_in_one_for_the_panel(platform):
    smuggle(platform, ADA)


def test_no_password_is_taken_in_clear_on_any_port_of_the_panel(platform):
    for port in (25, 587):
        with platform.smtp(port) as client:
            client.ehlo()
            assert "auth" not in client.esmtp_features
            assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] in (502, 503, 530, 538)
    sieve = Sieve(platform.address, platform.name)
    assert not sieve.login(ADA, PASSWORD).startswith("OK")
    sieve.close()
    for port, words, refusal in ((143, f"a LOGIN {ADA} {PASSWORD}", b"a NO"), (110, f"USER {ADA}", b"-ERR")):
        with socket.create_connection((platform.address, port), 10) as connection, connection.makefile("rwb") as file:
            file.readline()
            file.write(f"{words}\r\n".encode())
            file.flush()
            said = next(line for line in iter(file.readline, b"") if not line.startswith(b"*"))
            assert said.startswith(refusal), said


def connected(platform, port):
    """Give a connection on which TLS may begin; of the ports that AlternC has besides, one has it from its start."""
    return upgraded(platform, port) if port != 995 else socket.create_connection((platform.address, port), 10)


@pytest.mark.parametrize("port", [*UPGRADES, 995])
def test_the_panel_speaks_tls_1_2_and_1_3_with_a_certificate_of_its_name(platform, port):
    for number in OLD_VERSIONS.values():
        with connected(platform, port) as connection:
            connection.sendall(client_hello(number, platform.name))
            answer = b""
            with contextlib.suppress(OSError):
                answer = connection.recv(11)
            assert not accepts_old(answer, number)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust = platform.trusting()
        trust.minimum_version = trust.maximum_version = version
        with connected(platform, port) as plain, trust.wrap_socket(plain, server_hostname=platform.name) as safe:
            assert safe.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("forged", [ADA, OFFICE, "nobody@essai.example"])
def test_a_stranger_cannot_write_under_an_address_of_a_member(platform, forged):
    with platform.smtp() as client:
        code, said = told(client, forged, BOB)
    assert (code, "Log in to send as an address of this domain" in said) == (553, True), said


def test_an_account_sends_as_its_addresses_and_as_those_that_lead_to_it(platform):
    with platform.as_member(ADA) as client:
        for sender in (ADA, CLERK, OFFICE, FAR, FEDERATION):
            assert told(client, sender, BOB)[0] == 250, sender
        for sender in (BOB, "nobody@essai.example", STRANGER):
            code, said = told(client, sender, BOB)
            assert (code, "not owned by user" in said) == (553, True), (sender, said)
    with platform.as_member(BOB) as client:
        assert told(client, f"{unique()}@voisin.example", ADA)[0] == 250, "the catch-all's owner answers what it takes"
        assert told(client, OFFICE, ADA)[0] == 250, "it leads to him, too"
        assert told(client, CLERK, ADA)[0] == 553


def test_an_address_that_is_shut_in_the_panel_neither_takes_mail_nor_lets_in(platform):
    with platform.smtp() as client:
        code, said = told(client, STRANGER, SHUT)
        assert (code, "This mailbox is disabled" in said) == (550, True), said
    with platform.smtp(465) as client, refused(535):
        client.login(SHUT, PASSWORD)


# --- filters, quotas, spam ------------------------------------------------------------------------------------------


def test_a_filter_of_a_member_of_the_panel_sorts_their_mail(platform):
    word = unique()
    sieve = Sieve(platform.address, platform.name)
    sieve.starttls(platform.trust)
    assert sieve.login(BOB, PASSWORD).startswith("OK")
    script = f'require ["fileinto", "mailbox"];\nif header :contains "Subject" "{word}" {{ fileinto :create "Tri"; }}\n'
    assert sieve.put("e2e", script).startswith("OK")
    assert sieve.ask('SETACTIVE "e2e"')[-1].startswith("OK")
    sieve.close()
    subject = platform.send(ADA, BOB, subject=f"essai {word}")
    with platform.mailbox(BOB) as mailbox:
        mailbox.wait(subject, "Tri")
        assert not mailbox.find(subject)


def test_a_mailbox_that_is_full_by_the_panels_quota_says_so_before_the_message_is_sent(platform, panel):
    taken = 0
    with platform.smtp() as client, refused(552):
        for _number in range(8):
            mail = message(STRANGER, SMALL)
            mail.add_attachment(os.urandom(200_000), maintype="application", subtype="octet-stream")
            client.send_message(mail)
            with platform.mailbox(SMALL) as mailbox:
                mailbox.wait(mail["Subject"])
            taken += 1
    assert 2 <= taken <= 5
    [[used]] = panel.sql(f"SELECT quota_dovecot FROM dovecot_quota WHERE user = '{SMALL}'")  # noqa: S608 (ours)
    assert int(used) > 400_000, "the panel does not see how full it is"
    with platform.mailbox(SMALL) as mailbox:
        mailbox.empty()


def test_spam_is_refused_and_what_looks_like_it_goes_to_junk_on_the_panel(platform):
    with platform.smtp() as client, refused(554):
        client.send_message(message(STRANGER, ADA, GTUBE))
    mail = message(STRANGER, ADA, MARKED)
    with platform.smtp() as client:
        client.send_message(mail)
    with platform.mailbox(ADA) as mailbox:
        mailbox.wait(mail["Subject"], "Junk")
        assert not mailbox.find(mail["Subject"])


# --- one budget for what an account sends ---------------------------------------------------------------------------


@pytest.fixture
def small_budget(platform):
    """Let every account write to six recipients an hour, and freeze it at the second refusal."""
    before = platform.run(f"cat {BUDGET}")
    said = {**json.loads(before), "default": {"hour": 6, "day": 50}, "accounts": [], "patience": 0}

    def write(text):
        platform.run(f"printf %s {shlex.quote(text)} >{BUDGET} && systemctl restart infini-mail-budget.service")
        platform.run("for one in essai voisin; do infini-mail-budget drop $one; infini-mail-budget thaw $one; done")

    write(json.dumps(said))
    yield
    write(before)


@pytest.mark.usefixtures("small_budget")
def test_a_password_and_a_site_share_the_budget_of_the_account(platform, panel, members, outside):
    name = members[0].site("lettres", https="http")
    folder = "/var/www/alternc/e/essai/www/lettres"
    panel.run(f"cat >{folder}/send.php; chown {members[0].uid}:{members[0].uid} {folder}/send.php", SEND)
    assert panel.run("alternc-apply now", check=False) == ""
    run = f"budget{unique()}"

    def by_site(number, word):
        status, text, _ = panel.page(name, f"/send.php?n={number}&run={run}{word}")
        assert status == 200, text
        return text

    assert by_site(3, "a") == "sent 3"
    left = outside.wait(f"{run}a-0@dehors.test")
    assert left.sender == f"essai+lettres@{platform.name}", "the kernel says whose the program is"
    assert platform.verdicts(left)["dkim"] == "pass"
    for number in range(3):
        platform.send((ADA, CLERK)[number % 2], f"{run}b-{number}@dehors.test")
    platform.send(ADA, f"{run}c-0@dehors.test")  # the seventh: taken and held
    by_site(2, "d")
    time.sleep(5)
    frozen = json.loads(platform.run("infini-mail-budget queue"))
    assert "essai" in frozen["frozen"]
    assert frozen["accounts"]["essai"]["held"] == 3
    came = [to for one in outside.received for to in one.recipients if to.startswith(run)]
    assert len(came) == 6
    other = f"{unique()}@dehors.test"
    platform.send(BOB, other)
    outside.wait(other)
    platform.run("infini-mail-budget thaw essai")
    for late in (f"{run}c-0@dehors.test", f"{run}d-1@dehors.test"):
        outside.wait(late)


# --- what is out of order -------------------------------------------------------------------------------------------


def test_without_rspamd_mail_of_the_panel_waits_at_its_sender_and_nothing_leaves_unsigned(platform):
    mail, local = message(ADA, BOB), message(ADA, BOB)
    with down(platform, "rspamd.service"):
        with refused(451, 454), platform.as_member(ADA) as client:
            client.send_message(mail)
        platform.run(f"printf %s {shlex.quote(local.as_string())} | sendmail -f {ADA} {BOB}")
        time.sleep(2)
        with platform.mailbox(BOB) as mailbox:
            assert not mailbox.find(local["Subject"])
    platform.run("postqueue -f")
    with platform.mailbox(BOB) as mailbox:
        assert platform.verified(mailbox.wait(local["Subject"], seconds=90))


def test_without_the_panels_database_mail_waits_at_its_sender(platform, panel):
    mail = message(STRANGER, ADA)
    with down(platform, "mariadb.service"):
        with platform.smtp() as client:
            assert 400 <= told(client, STRANGER, ADA)[0] < 500
        said = panel.run("infini-mail-panel follow 2>&1; echo status $?")
        assert "database does not answer" in said
        assert said.endswith("status 1")
    with platform.smtp() as client:
        client.send_message(mail)
    with platform.mailbox(ADA) as mailbox:
        mailbox.wait(mail["Subject"])


@pytest.mark.parametrize("unit", ["postfix@-.service", "dovecot.service"])
def test_who_is_killed_comes_back_on_the_panel(platform, unit):
    platform.run(f"systemctl kill --signal=KILL --kill-whom=main {unit}")
    end = time.monotonic() + 30
    while not (takes_mail(platform) and platform.run(f"systemctl is-active {unit} || :").strip() == "active"):
        assert time.monotonic() < end, f"{unit} did not come back"
        time.sleep(0.3)
    subject = platform.send(BOB, ADA)
    with platform.mailbox(ADA) as mailbox:
        mailbox.wait(subject)


# --- AlternC's own configuration --------------------------------------------------------------------------------------

LOOK = "cat /etc/postfix/main.cf /etc/postfix/master.cf; doveconf -n; postconf -n 2>&1 >/dev/null"


def test_alternc_install_leaves_our_additions_and_we_leave_what_it_wrote(platform, panel):
    before = panel.run(LOOK)
    for _time in range(2):
        panel.run("alternc.install -n </dev/null >/dev/null 2>&1")
        assert panel.run("ls /run/alternc/jobs-lock", check=False) == "", "it refused, or did not come to its end"
        again = panel.run(LOOK)
        assert again == before
    panel.run("systemctl start named apache2; alternc-apply now", check=False)
    done = play(playbook_path("mail"), str(platform.inventory.path), arguments=["--limit", platform.host])
    assert done.ok, done.sentence()
    assert done.changed == 0
    subject = platform.send(ADA, BOB)
    with platform.mailbox(BOB) as mailbox:
        assert platform.verified(mailbox.wait(subject))


def test_a_hand_in_alterncs_own_lines_is_still_seen_by_alternc_install(panel):
    panel.run("cp -p /etc/postfix/master.cf /root/master.cf; sed -i '1i # by hand' /etc/postfix/master.cf")
    try:
        said = panel.run("alternc.install -n </dev/null 2>&1; echo status $?", check=False)
        assert "etc/postfix/master.cf" in said
        assert said.endswith("status 1")
    finally:
        panel.run("cp -p /root/master.cf /etc/postfix/master.cf; rm -f /root/master.cf /run/alternc/jobs-lock")
        panel.run("postfix reload 2>/dev/null; infini-mail-panel follow")


def test_a_setting_that_somebody_changed_comes_back(panel):
    panel.run("postconf -e smtpd_milters= milter_default_action=accept; infini-mail-panel follow")
    said = panel.run("postconf -h smtpd_milters milter_default_action").splitlines()
    assert said == ["unix:/run/rspamd/milter.sock", "tempfail"]


def test_secrets_of_the_panels_mail_are_readable_by_their_programs_only(panel):
    assert panel.run("stat -c '%a %U %G' /var/lib/infini/mail/dkim/*.key | sort -u") == "640 root _rspamd"
    for column in ("password FROM address", "pass FROM membres"):
        said = panel.run(f"runuser -u postfix -- mariadb -NBe 'SELECT {column}' alternc 2>&1", check=False)
        assert "SELECT command denied to user 'postfix'@'localhost'" in said
