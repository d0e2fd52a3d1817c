#!/usr/bin/python
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: cms_sites
short_description: Install a CMS with one article into each of a whole set of sites
description:
  - Meant for staging, where real sites of the kinds and ages that members run have to answer.
  - Each site gets its own full copy of the CMS, owned by its account; the CMS's installer runs in the site's own PHP.
  - The files come from Debian packages of the wanted release, fetched from the sources of a PHP tree or of the host.
  - An installed site is recognised by its configuration file and its titles; it is not touched again.
  - The administrator's password (user V(webmestre)) is made on the host and kept in the home of the account.
options:
  sites:
    description: The sites of the set. Accounts, databases and document roots exist before.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Host name of the site., type: str, required: true}
      account: {description: Account that owns it., type: str, required: true}
      kind: {description: What to install., type: str, choices: [spip, static, wordpress], required: true}
      release: {description: Debian release whose package is taken. Not for V(static)., type: str}
      php: {description: PHP version that serves the site. Not for V(static)., type: str}
      database: {description: Database that the account may fill. Not for V(static)., type: str}
      title: {description: Title of the site., type: str, required: true}
      article: {description: Title of its article., type: str, required: true}
  trees:
    description: PHP versions that live in a tree of their own under C(/srv/php); the others are the host's.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [Infini (https://infini.fr)]
"""

EXAMPLES = r"""
- name: Install the staging sites
  cms_sites:
    sites:
      - name: velo.infini.test
        account: velo
        kind: spip
        release: bullseye
        php: "7.4"
        database: velo_spip
        title: Vélo en ville
        article: Atelier de réparation
    trees: ["7.4"]
"""

RETURN = r"""
installed:
  description: What was installed or corrected now.
  type: list
  elements: dict
  returned: success
  contains:
    name: {description: Name of the site., type: str}
    version: {description: Version that the CMS says it has., type: str}
    seconds: {description: How long it took., type: float}
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.hosting import cms, cms_pictures

PICTURES = Path("/var/cache/infini/cms")
TEXT = "Ce site et cet article appartiennent à un membre imaginaire de la préproduction."


def call(command, folder=None, **options):
    """Run a command and return what it printed; its own words are the reason when it fails."""
    quiet = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    environment = {**os.environ, **quiet}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False, **options
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[
            -2000:
        ] or f"it ended with status {done.returncode}, try again"
        raise cms.CmsError(f"{Path(command[0]).name} failed: {words}")
    return done.stdout


def ask(question):
    """Return the database server's answer, one row a line; nothing when no server is here yet."""
    if not question or not Path(cms.DATABASE_SOCKET).exists():
        return ""
    socket = f"--socket={cms.DATABASE_SOCKET}"
    return call(["mariadb", socket, "--batch", "--skip-column-names"], input=question)


def look(sites):
    """Return what stands of each site."""
    tables = cms.parse_table_list(ask(cms.tables_question())) if any(site.database for site in sites) else set()
    titles = cms.parse_titles(ask(cms.titles_question(sites, tables)))
    seen = {}
    for site in sites:
        if site.kind == "static":
            pages = cms.static_pages(site, TEXT)
            stands = all(content(Path(site.root, name)) == text for name, text in pages.items())
            seen[site.name] = cms.Seen(True, site.title, site.article) if stands else cms.Seen()
        elif Path(site.root, cms.KINDS[site.kind].config).is_file():
            seen[site.name] = cms.Seen(True, *titles.get(site.name, (None, None)))
    return seen


def content(path):
    """Return the text of a file, or nothing when it is not there."""
    try:
        return path.read_text("utf-8")
    except OSError:
        return None


def copy(site, picture):
    """Copy a folder into the document root as the site's account: root never writes where a member may put links."""
    account = {"user": site.account, "group": site.account, "extra_groups": [], "umask": 0o027}
    call(["cp", "--recursive", "--no-preserve=mode", f"{picture}/.", site.root], **account)


def password(site):
    """Return the administrator's password, made and kept at the first call."""
    path = Path(site.secret)
    if not path.exists():
        new = Path(f"{path}.new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"webmestre {secrets.token_urlsafe(18)}\n")
        shutil.chown(new, site.account, site.account)
        new.replace(path)
    return path.read_text().split()[1]


def picture_of(site):
    """Return where the self-contained copy of the site's CMS stands."""
    return PICTURES / f"{site.kind}-{site.release}"


def make_picture(site, trees):
    """Make the self-contained copy of the site's CMS, unless another site did."""
    if not picture_of(site).is_dir():
        root = cms_pictures.find_root(site.release, [Path("/"), *(Path(cms.TREES, version) for version in trees)])
        cms_pictures.make(cms.KINDS[site.kind], root, picture_of(site), call)


def install_static(site):
    """Write the pages of a static site."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name, text in cms.static_pages(site, TEXT).items():
            Path(folder, name).write_text(text, "utf-8")
            Path(folder, name).chmod(0o644)
        copy(site, folder)
    return ""


def install_cms(step, trees):
    """Copy the CMS where it is missing and have its own installer do the rest; return its version."""
    site = step.site
    if step.copy:
        copy(site, picture_of(site))
    settings = {
        "root": site.root,
        "site": site.name,
        "account": site.account,
        "database": site.database,
        "socket": cms.DATABASE_SOCKET,
        "title": site.title,
        "article": site.article,
        "text": TEXT,
        "password": password(site),
    }
    printed = call(cms.install_command(site, cms.runtime_root(site.php, trees)), input=json.dumps(settings))
    return json.loads(printed.splitlines()[-1])["version"]


def named(site, work, *args):
    """Do the work and return what it returns; a failure names the site."""
    try:
        return work(*args)
    except cms.CmsError as error:
        raise cms.CmsError(f"the site {site.name} cannot be installed: {error}") from error


def refuse_unready(site, trees):
    """Raise one sentence when an earlier role did not make what the site stands on."""
    if not Path(site.root).is_dir():
        raise cms.CmsError(f"its document root {site.root} is missing: apply the role sites first")
    program = Path(cms.runtime_root(site.php, trees), f"usr/bin/php{site.php}")
    if site.php and not os.path.lexists(program):
        raise cms.CmsError(f"PHP {site.php} is not on this host ({program} is missing): apply the role php first")


def install(step, trees):
    """Bring one site to its wanted state."""
    start = time.monotonic()
    version = install_static(step.site) if step.site.kind == "static" else install_cms(step, trees)
    return {"name": step.site.name, "version": version, "seconds": round(time.monotonic() - start, 1)}


def install_all(steps, trees):
    """Bring the sites to their wanted state, several at a time."""
    for step in steps:
        named(step.site, refuse_unready, step.site, trees)
    firsts = {picture_of(step.site): step.site for step in steps if step.copy and step.site.kind != "static"}
    # More workers than processors: installers often wait for the database or for a package.
    with ThreadPoolExecutor(max_workers=len(firsts) + 4) as workers:
        pictures = {path: workers.submit(named, site, make_picture, site, trees) for path, site in firsts.items()}

        def work(step):
            if step.copy and step.site.kind != "static":
                pictures[picture_of(step.site)].result()
            return named(step.site, install, step, trees)

        return list(workers.map(work, steps))


def main():
    """Read, plan, write."""
    options = {
        "name": {"type": "str", "required": True},
        "account": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["spip", "static", "wordpress"], "required": True},
        "release": {"type": "str"},
        "php": {"type": "str"},
        "database": {"type": "str"},
        "title": {"type": "str", "required": True},
        "article": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "sites": {"type": "list", "elements": "dict", "required": True, "options": options},
            "trees": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    sites = [cms.Site(**site) for site in module.params["sites"]]
    try:
        cms.refuse_impossible(sites)
        steps = cms.plan(sites, look(sites))
        installed = [] if module.check_mode else install_all(steps, module.params["trees"])
    except cms.CmsError as error:
        module.fail_json(msg=str(error))
    diff = {
        "before": "".join(f"{step.before}\n" for step in steps),
        "after": "".join(f"{step.site}\n" for step in steps),
    }
    module.exit_json(changed=bool(steps), installed=installed, diff=diff)


if __name__ == "__main__":
    main()
