#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mailboxes
short_description: Own a host's whole mail - domains, mailboxes, aliases and catch-alls
description:
  - Writes what Postfix and Dovecot read, as one transaction, and reloads Postfix when its part has changed.
  - "Postfix's maps are C(texthash), read through C(proxymap): the text is the map, so nothing is compiled, and a change
    of several files is seen whole or not at all. One process holds them in memory for all."
  - A mailbox that is no longer declared is never deleted. Nobody logs in to it, its mail stays on the disk, and new
    mail is deferred (450) for as long as nobody decides. One that is declared with C(enabled=false) refuses its mail
    (550).
  - Every domain has C(postmaster) and C(abuse); unless they are declared, they lead to O(postmaster).
  - Whoever logs in may send as the mailbox, and as each alias or catch-all that leads to it. Addresses of ours that
    nobody may send as have an owner all the same, so that no stranger can use them.
  - Makes a DKIM key for each domain that has none, on the host, and writes what the DNS must say of each domain to
    C(/var/lib/infini/mail/records.zone). Which of a domain's keys signs is C(infini-mail)'s to know, and stays.
options:
  host: {description: Name of this host in the DNS., type: str, required: true}
  postmaster: {description: Where mail that is the platform's business goes., type: str, required: true}
  domains:
    description: The domains whose mail is received here.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the domain., type: str, required: true}
      account: {description: Whose it is., type: str}
  mailboxes:
    description: The whole set of mailboxes.
    type: list
    elements: dict
    default: []
    suboptions:
      address: {description: The address., type: str, required: true}
      password_hash:
        description: A SHA512-CRYPT, SHA256-CRYPT, BLF-CRYPT, ARGON2ID or yescrypt hash. Without one nobody logs in.
        type: str
      quota: {description: Such as V(5G); V(0) for none; O(quota) unless given., type: str}
      enabled: {description: Whether it takes mail and lets its owner in., type: bool, default: true}
  aliases:
    description: The whole set of aliases and forwards. A mailbox among its own targets keeps a copy.
    type: list
    elements: dict
    default: []
    suboptions:
      address: {description: The address., type: str, required: true}
      to: {description: Where its mail goes., type: list, elements: str, required: true}
  catch_alls:
    description: Where mail for all other addresses of a domain goes.
    type: list
    elements: dict
    default: []
    suboptions:
      domain: {description: The domain., type: str, required: true}
      to: {description: Where its mail goes., type: list, elements: str, required: true}
  data:
    description:
      - Instead of the four lists, JSON text of an object that holds them. For large sets (above 5,000), of which
        Ansible would walk through every item.
    type: str
    default: ""
  quota: {description: Quota of a mailbox that says none., type: str, default: "0"}
  homes: {description: Directory that holds the mailboxes., type: path, default: /srv/mail}
  selector: {description: Name under which a domain's first DKIM key stands in the DNS., type: str, default: infini1}
  spf: {description: "SPF record; C({domain}) stands for the domain.", type: str, default: v=spf1 mx ~all}
  dmarc: {description: "DMARC record; C({domain}) stands for the domain.", type: str, default: v=DMARC1; p=none}
  tls_reports:
    description: Record that says where to report on TLS; C({host}) stands for O(host).
    type: str
    default: ""
  pages: {description: Name of the host that serves the pages of the domains., type: str, default: ""}
  sts: {description: Text of the MTA-STS policy that it serves., type: str, default: ""}
  ttl: {description: Seconds for which what the DNS says may be remembered., type: int, default: 3600}
  confirm_removals:
    description: Mailboxes, aliases, or domains with all their addresses, that may go although they are many at once.
    type: list
    elements: str
    default: []
  overwrite:
    description: Files edited by hand that may be overwritten.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Own the members' mail
  mailboxes:
    host: lists.infini.test
    postmaster: techs@velo.test
    domains: [{name: velo.test, account: velo}]
    mailboxes:
      - {address: techs@velo.test, password_hash: "{{ vault_techs_hash }}", quota: 5G}
    aliases:
      - {address: bureau@velo.test, to: [techs@velo.test, president@example.org]}
"""

RETURN = r"""
opened: {description: Mailboxes opened now., type: list, elements: str, returned: always}
disabled: {description: Mailboxes declared as disabled now., type: list, elements: str, returned: always}
shut: {description: Mailboxes shut now that nobody declares them., type: list, elements: str, returned: always}
undeclared: {description: All mailboxes that nobody declares and since when., type: dict, returned: always}
keys: {description: Domains whose DKIM key was made now., type: list, elements: str, returned: always}
notices: {description: What works but not as somebody hoped., type: list, elements: str, returned: always}
files: {description: Files that changed., type: list, elements: str, returned: always}
"""

import datetime
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import mail_door as door
from ansible.module_utils.hosting.mail import KINDS


def declaration(module):
    """Return the four lists, from wherever they came."""
    params = module.params
    if not params["data"]:
        return {kind: params[kind] for kind in KINDS}
    if any(params[kind] for kind in KINDS):
        module.fail_json(msg="mail is declared both as lists and as a file: keep one of the two")
    try:
        said = json.loads(params["data"])
    except ValueError as error:
        # Not the text itself: it holds hashes.
        module.fail_json(msg=f"the file of mail's data is not JSON ({error}): mend it at that place")
    if not isinstance(said, dict):
        module.fail_json(msg=f"the file of mail's data holds no object: write one with {', '.join(KINDS)}")
    return {**{kind: [] for kind in KINDS}, **said}


def main():
    """Hand what is declared to the door, return what it says."""
    text = {"type": "str", "required": True}
    texts = {"type": "list", "elements": "str"}
    mailbox = {
        "address": text,
        "password_hash": {"type": "str", "no_log": True},
        "quota": {"type": "str"},
        "enabled": {"type": "bool", "default": True},
    }
    options = {
        "domains": {"name": text, "account": {"type": "str"}},
        "mailboxes": mailbox,
        "aliases": {"address": text, "to": {**texts, "required": True}},
        "catch_alls": {"domain": text, "to": {**texts, "required": True}},
    }
    module = AnsibleModule(
        argument_spec={
            **{kind: {"type": "list", "elements": "dict", "default": [], "options": options[kind]} for kind in KINDS},
            "host": text,
            "postmaster": text,
            "data": {"type": "str", "default": "", "no_log": True},
            "quota": {"type": "str", "default": "0"},
            "homes": {"type": "path", "default": "/srv/mail"},
            "selector": {"type": "str", "default": "infini1"},
            "spf": {"type": "str", "default": "v=spf1 mx ~all"},
            "dmarc": {"type": "str", "default": "v=DMARC1; p=none"},
            "ttl": {"type": "int", "default": 3600},
            "tls_reports": {"type": "str", "default": ""},
            "pages": {"type": "str", "default": ""},
            "sts": {"type": "str", "default": ""},
            "confirm_removals": {**texts, "default": []},
            "overwrite": {**texts, "default": []},
        },
        supports_check_mode=True,
    )
    said, today = declaration(module), datetime.date.today().isoformat()
    result = door.answer(module.params, said, today, check_mode=module.check_mode, diff=module._diff, host=door.Host())
    # What came is large, and holds hashes.
    result["invocation"] = {}
    if result.get("failed"):
        module.fail_json(**result)
    for notice in result["notices"]:
        module.warn(notice)
    if result["undeclared"]:
        names = ", ".join(f"{address} (since {since})" for address, since in result["undeclared"].items())
        module.warn(f"Mailboxes that nobody declares are shut, and their mail is kept: {names}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
