# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill found out, on one page: for the general assembly as for the next volunteer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from infini.locale import catalogue
from infini.phrase import Phrase, said

if TYPE_CHECKING:
    from infini.backups.drill import Drill


def _(text: str) -> str:
    """Mark a text for the catalogue; it is filled and translated where it is said."""
    return text


STAGES: Mapping[str, str] = {
    "machines": Phrase("empty machines"),
    "platform": Phrase("the services, empty"),
    "hold": Phrase("what writes of itself is held"),
    "closed": Phrase("no way out"),
    "restore": Phrase("from the archives"),
    "compare": Phrase("compared with the manifests"),
    "older": Phrase("an older archive"),
    "services": Phrase("the services, full"),
    "verify": Phrase("tried as a visitor"),
    "faults": Phrase("seeded faults"),
}
FINDINGS: Mapping[str, str] = {
    "missing": _("{what} is not in the archive"),
    "extra": _("{what} was not there when the archive was made"),
    "kind": _("{what} is another kind of file"),
    "mode": _("{what} has other rights: {found} instead of {wanted}"),
    "owner": _("{what} belongs to {found} instead of {wanted}"),
    "acl": _("{what} has lost its access list or attributes"),
    "size": _("{what} has {found} bytes instead of {wanted}"),
    "content": _("{what} has the right size and another content"),
    "link": _("{what} leads to {found} instead of {wanted}"),
    "time": _("{what} is of another day: a message would look new"),
    "database_missing": _("the database {what} did not come back"),
    "table_missing": _("the table {what} did not come back"),
    "table_rows": _("the table {what} has {found} rows instead of {wanted}"),
    "table_checksum": _("the table {what} has the right number of rows and another content"),
    "count": _("{what}: {found} instead of {wanted}"),
    "canary_stale": _(
        "the archive is called today's and its canary is of another day: the same old files are copied again"
    ),
    "objects_missing": _("{what} has {found} of its {wanted} views, routines, triggers or events"),
    "restored_failed": _("after the restore, “{what}” failed"),
    "stopped": _("the drill stopped: {what}"),
    "too_old": _("the newest archive, {what}, is {found} hours old, at most {wanted} were promised"),
    "rotten": _("{what} changed on the disk although nobody wrote it: a disk that fails"),
    "unreadable": _("{what} could not be read when the archive was made"),
    "broken": _("the table {what} is broken, and in no dump: mariadb-check says more"),
    "source_gone": _("{what} was in the archive before, and is not in this one"),
    "manifest_torn": _("the list of files in the archive is not the one that was made: its sum differs"),
    "manifest_absent": _("the archive has no manifest: nothing proves that it is whole"),
    "nothing_sampled": _("the manifest names nothing: an empty proof proves nothing"),
    "size_moved": _("{what} went from {wanted} to {found} since the archive before: more than 15 %"),
    "moved_on": _("{found} files changed while the archive was made: more than {wanted}"),
    "archive_vanished": _("the archive {what} was in the store and is no longer, and we did not remove it"),
}
"""What a code of a host means."""


def says(finding: Mapping[str, Any]) -> Phrase:
    """Return a finding as a sentence; a code that has none yet is shown as it is."""
    values = {"what": "", "wanted": "", "found": "", **finding}
    where = f"{finding['host']}, {finding['service']}"
    objects = ("views", "routines", "triggers", "events", "sequences")
    code = "objects_missing" if finding["code"].removesuffix("_missing") in objects else finding["code"]
    sentence = FINDINGS.get(code)
    if sentence is None:
        return Phrase("{where}: {code} {what}", where=where, code=finding["code"], what=values["what"])
    return Phrase("{where}: {sentence}", where=where, sentence=Phrase(sentence, **values))


def page(done: Drill, language: str = "fr") -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    total = max(done.recovery_time, 1)
    begins, bars = 0.0, []
    for name, seconds in done.stages.items():
        bars.append(
            {"name": said(STAGES[name], language), "from": begins / total, "share": seconds / total, "s": seconds}
        )
        begins += seconds
    return environment.get_template("report.html.jinja").render(
        language=language,
        _=catalogue(language).gettext,
        drill=done,
        bars=bars,
        findings=[said(says(finding), language) for finding in done.findings],
    )
