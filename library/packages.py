# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: packages
short_description: Have a set of Debian packages installed
description:
  - Asks dpkg whether all of them are there, which takes a tenth of what M(ansible.builtin.apt) takes to find that out.
  - M(ansible.builtin.apt) is called where one is missing, where one is only there because another needs it (it would go
    with that one), and once a day to fetch the lists. It installs no recommended packages.
  - No service is started by its package. Each role starts its own, once it is configured.
  - It is an action plugin over that module.
options:
  names:
    description: Names of packages.
    type: list
    elements: str
    required: true
  update_cache:
    description: Whether the lists are fetched before anything is installed, however new they are.
    type: bool
    default: false
  answers:
    description:
      - A template of the role, which answers what the packages ask when they are installed, in the words of
        debconf-set-selections(1). It is only rendered where one is missing.
    type: str
    default: ""
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: Infini
"""

EXAMPLES = r"""
- name: Install Apache
  packages:
    names: [apache2, libapache2-mpm-itk]
"""

RETURN = r"""
stdout:
  description: What apt said.
  type: str
  returned: when something was installed
"""
