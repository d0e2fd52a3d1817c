# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight action: refuse an inventory that cannot work before any host is touched."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from hosting import mail_panel, model
from infini import ROOT, cards, preflight
from infini.plain import plain


class ActionModule(ActionBase):
    """Check the variables of one host against every contract; runs on the control node only."""

    _requires_connection = False
    _VALID_ARGS = frozenset()

    def run(self, tmp=None, task_vars=None):
        """Return nothing but `changed: false`, or fail with all sentences at once."""
        result = super().run(tmp, task_vars)
        host = task_vars["inventory_hostname"]
        found = Values(self._templar, {**self._defaults(task_vars), **task_vars})
        problems = list(self._problems(task_vars, found))
        if problems:
            return {
                **result,
                "failed": True,
                "refused": True,
                "msg": f"Nothing was touched. In the inventory, for {host}:\n- " + "\n- ".join(problems),
            }
        return {**result, "changed": False, "notices": list(self._notices(found))}

    @staticmethod
    def _roles(task_vars):
        uses = cards.uses_on(task_vars["inventory_hostname"], task_vars["group_names"], cards.uses(ROOT / "playbooks"))
        return list(dict.fromkeys(use.role for use in uses))

    def _defaults(self, task_vars):
        return {name: value for role in self._roles(task_vars) for name, value in preflight.role_defaults(role).items()}

    def _problems(self, task_vars, found):
        specs = {role: preflight.role_spec(role) for role in preflight.all_roles()}
        own = preflight.inventory_spec()
        known = {name for spec in (own, *specs.values()) for name in spec}
        yield from preflight.unknown_variables(task_vars, known)
        # The inventory's own first: what roles are given is computed from it.
        for spec in (own, *(specs.get(role, {}) for role in self._roles(task_vars))):
            values, errors = found.of(spec)
            yield from errors or preflight.contract_errors(spec, values)
        yield from self._model(found, self._roles(task_vars))

    @staticmethod
    def _notices(found):
        """Tell what works today and will not for ever."""
        values, _ = found.of(("hosting_sites", "php_runtimes"))
        return model.notices(values.get("hosting_sites", []), values.get("php_runtimes", []))

    @staticmethod
    def _model(found, roles):
        """Check accounts and sites as a whole: what no contract of a single variable can see."""
        names = ("hosting_accounts", "hosting_sites", "hosting_redirections", "hosting_profiles", "php_runtimes")
        values, _ = found.of(names)
        accounts, sites, redirections, profiles, runtimes = (values.get(name, []) for name in names)
        versions = [runtime["version"] for runtime in runtimes]
        mail, _ = found.of(("mail_mode", "mail_selector", "hosting_panel", *mail_panel.OWNED))
        return [
            *model.problems(accounts, [*sites, *redirections], versions, profiles),
            *(mail_panel.problems(mail) if "mail" in roles else []),
        ]


class Values:
    """A host's variables, templated once each: what is computed from them later finds plain values."""

    def __init__(self, templar, variables):
        self._templar, self._variables, self._errors = templar, variables, {}
        self._left = set(variables)

    def of(self, names):
        """Return the values of those that are declared, and a sentence for each that cannot be had."""
        self._templar.available_variables = self._variables
        names = [name for name in names if name in self._variables]
        for name in [name for name in names if name in self._left]:
            self._left.remove(name)
            try:
                self._variables[name] = plain(self._templar.template(self._variables[name]))
            except AnsibleError as error:
                self._errors[name] = f"{name} cannot be computed: {error.message}"
        had = {name: self._variables[name] for name in names if name not in self._errors}
        return had, [self._errors[name] for name in names if name in self._errors]
