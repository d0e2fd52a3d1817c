# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight action: refuse an inventory that cannot work before any host is touched."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from hosting import model
from infini import ROOT, cards, preflight


class ActionModule(ActionBase):
    """Check the variables of one host against every contract; runs on the control node only."""

    _requires_connection = False
    _VALID_ARGS = frozenset()

    def run(self, tmp=None, task_vars=None):
        """Return nothing but `changed: false`, or fail with all sentences at once."""
        result = super().run(tmp, task_vars)
        host = task_vars["inventory_hostname"]
        problems = list(self._problems(task_vars))
        if problems:
            return {
                **result,
                "failed": True,
                "refused": True,
                "msg": f"Nothing was touched. In the inventory, for {host}:\n- " + "\n- ".join(problems),
            }
        return {**result, "changed": False, "notices": list(self._notices(task_vars))}

    def _problems(self, task_vars):
        specs = {role: preflight.role_spec(role) for role in preflight.all_roles()}
        own = preflight.inventory_spec()
        known = {name for spec in (own, *specs.values()) for name in spec}
        yield from preflight.unknown_variables(task_vars, known)
        uses = cards.uses_on(task_vars["inventory_hostname"], task_vars["group_names"], cards.uses(ROOT / "playbooks"))
        roles = list(dict.fromkeys(use.role for use in uses))
        defaults = {name: value for role in roles for name, value in preflight.role_defaults(role).items()}
        for spec in (own, *(specs.get(role, {}) for role in roles)):
            values, errors = self._values(spec, {**defaults, **task_vars})
            yield from errors or preflight.contract_errors(spec, values)
        yield from self._model(task_vars)

    def _values(self, names, variables):
        """Template what is declared of a contract; what refers to something undefined is a sentence."""
        self._templar.available_variables = variables
        values, errors = {}, []
        for name in names:
            if name in variables:
                try:
                    values[name] = self._templar.template(variables[name])
                except AnsibleError as error:
                    errors.append(f"{name} cannot be computed: {error.message}")
        return values, errors

    def _notices(self, task_vars):
        """Tell what works today and will not for ever."""
        values, _ = self._values({"hosting_sites": {}, "php_runtimes": {}}, task_vars)
        return model.notices(values.get("hosting_sites", []), values.get("php_runtimes", []))

    def _model(self, task_vars):
        """Check accounts and sites as a whole: what no contract of a single variable can see."""
        names = ("hosting_accounts", "hosting_sites", "hosting_redirections", "hosting_profiles", "php_runtimes")
        values, _ = self._values(names, task_vars)
        accounts, sites, redirections, profiles, runtimes = (values.get(name, []) for name in names)
        versions = [runtime["version"] for runtime in runtimes]
        return model.problems(accounts, [*sites, *redirections], versions, profiles)
