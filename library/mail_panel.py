#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mail_panel
short_description: Join the mail of a host that AlternC configures
description:
  - Adds the settings of C(/etc/infini-mail/main.cf) and the entries of C(/etc/infini-mail/master.cf) to AlternC's
    Postfix, and reloads it when they changed. What was added before and is no more is AlternC's again.
  - Lets Postfix read AlternC's addresses (never their passwords) as the Unix account that it is.
  - Hands the DKIM keys that AlternC publishes to Rspamd, makes those of domains whose DNS is elsewhere, and
    writes whose each domain is, and what its DNS must say, to C(/var/lib/infini/mail).
  - C(infini-mail-panel) on the host does the same every minute, and after each C(alternc.install).
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Join AlternC's mail
  mail_panel:
"""

RETURN = r"""
words:
  description: What was done, a few words each.
  type: list
  elements: str
  returned: success
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting.brake import UnsafePlanError
from ansible.module_utils.hosting.mail_panel_command import Host, PanelError, run


def main():
    """Do what the command does, and say it in Ansible's words."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        result = run(Host(), check=module.check_mode)
    except (PanelError, UnsafePlanError, OSError) as problem:
        module.fail_json(msg=str(problem))
    except subprocess.CalledProcessError as problem:
        reason = problem.stderr.decode(errors="replace").strip()
        module.fail_json(msg=f"`{' '.join(problem.cmd[:2])}` failed on this host: {reason}")
    module.exit_json(**(result if module._diff else {**result, "diff": []}))


if __name__ == "__main__":
    main()
