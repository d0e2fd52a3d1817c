# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service cards with a host's values in them: what the lookup plugins share, inside Ansible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.template import trust_as_template

from infini import ROOT, cards
from infini.cards import Render, Use


class RenderedCards:
    """Reads and renders the cards of one host, or of one playbook; `loader` and `templar` are a lookup plugin's."""

    def __init__(self, loader: Any, templar: Any, variables: Mapping[str, Any], playbook: str | None = None) -> None:
        self._loader, self._templar, self._variables, self._playbook = loader, templar, variables, playbook

    def cards(self) -> list[dict[str, Any]]:
        """Give the whole cards."""
        return [{**cards.render_card(card, render), "playbook": use.playbook} for use, card, render in self._each()]

    def checks(self, *kinds: str) -> list[dict[str, Any]]:
        """Give what a check needs of the cards: checks (of some kinds, or all), ports, names."""
        found = []
        for use, card, render in self._each():
            wanted = [check for check in card.get("checks") or [] if not kinds or check["kind"] in kinds]
            part = {"service": card["service"], "label": card.get("label", card["service"])}
            part |= {"ports": card.get("ports"), "checks": wanted}
            found.append({**cards.render_card(part, render), "playbook": use.playbook})
        return found

    def ports(self) -> list[dict[str, Any]]:
        """Give the ports of all cards as one list."""
        return [port for _, card, render in self._each() for port in cards.render_ports(card, render)]

    def whole(self) -> list[dict[str, Any]]:
        """Give what makes each service whole, of those that have something to keep."""
        return [whole for _, card, render in self._each() if (whole := cards.render_whole(card, render))]

    def held(self) -> list[str]:
        """Give the units that stand still while services are brought back, in the order of the cards."""
        return [unit for _, card, render in self._each() for unit in render(card.get("held") or [], {})]

    def packages(self) -> list[str]:
        """Give the packages of all cards, each once, sorted."""
        return sorted({name for _, card, render in self._each() for name in render(card.get("packages") or [], {})})

    def _each(self) -> Iterator[tuple[Use, dict[str, Any], Render]]:
        host, groups = self._variables["inventory_hostname"], self._variables["group_names"]
        uses = [use for use in cards.uses(ROOT / "playbooks") if self._playbook in (None, use.playbook)]
        for use in cards.uses_on(host, groups, uses):
            path = ROOT / "roles" / use.role / "meta" / "service.yml"
            render = self._renderer(use.role)
            if path.is_file() and self._holds(use, render):
                yield use, self._read(path), render

    def _holds(self, use: Use, render: Render) -> bool:
        conditions = use.when if isinstance(use.when, list) else [True if use.when is None else use.when]
        return all(
            render(trust_as_template(f"{{{{ ({condition}) | bool }}}}"), {})
            if isinstance(condition, str)
            else bool(condition)
            for condition in conditions
        )

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a file of the repository, whose templates are ours and may be rendered.

        `unsafe` spares a deep copy of what the loader remembers: nothing is changed here.
        """
        if not path.is_file():
            return {}
        return dict(self._loader.load_from_file(str(path), unsafe=True, trusted_as_template=True) or {})

    def _renderer(self, role: str) -> Render:
        directory = ROOT / "roles" / role
        known = {
            **self._read(directory / "defaults" / "main.yml"),
            **self._variables,
            **self._read(directory / "vars" / "main.yml"),
        }

        def render(value: Any, extra: Mapping[str, Any]) -> Any:
            templar = self._templar.copy_with_new_env(available_variables={**known, **extra})
            try:
                return templar.template(value)
            except Exception as error:
                raise AnsibleError(f"the service card of role {role} cannot be rendered: {error}") from error

        return render
