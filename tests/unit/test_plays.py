# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the playbooks as data."""

from infini import ROOT, plays


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_imported_playbooks_are_read_in_order(tmp_path):
    write(tmp_path / "b.yml", "- {hosts: b, roles: [two, {role: three}]}\n")
    site = write(tmp_path / "a.yml", "- {hosts: a, roles: [one]}\n- ansible.builtin.import_playbook: b.yml\n")
    assert [(play["hosts"], plays.roles_of(play)) for play in plays.plays(site)] == [
        ("a", ["one"]),
        ("b", ["two", "three"]),
    ]


def test_a_role_that_is_imported_whole_is_one_of_the_play():
    tasks = [
        {"name": "Some of it", "ansible.builtin.import_role": {"name": "one", "tasks_from": "begin.yml"}},
        {"name": "Two", "ansible.builtin.import_role": {"name": "two"}, "when": "staging"},
        {"name": "Wait", "ansible.builtin.meta": "flush_handlers"},
    ]
    play = {"hosts": "a", "roles": ["one"], "tasks": tasks}
    assert list(plays.applied(play)) == [("one", None), ("two", "staging")]


def test_tasks_are_counted_through_blocks_and_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(plays, "ROOT", tmp_path)
    write(
        tmp_path / "roles/one/tasks/main.yml", "- {ansible.builtin.import_tasks: more.yml}\n- block: [{a: 1}, {b: 2}]\n"
    )
    write(tmp_path / "roles/one/tasks/more.yml", "- {c: 3}\n- {ansible.builtin.meta: flush_handlers}\n")
    write(tmp_path / "roles/one/meta/argument_specs.yml", "argument_specs: {}\n")
    book = write(tmp_path / "site.yml", "- {hosts: all, gather_facts: true, tasks: [{d: 4}], roles: [one]}\n")
    # facts, d, the contract of the role, a, b, c, the handlers' turn
    assert plays.count_tasks(book) == 7


def test_encrypted_values_are_texts(tmp_path):
    book = write(tmp_path / "x.yml", "secret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3130\n")
    assert plays.read_yaml(book)["secret"].startswith("$ANSIBLE_VAULT")


def test_the_site_playbook_begins_with_what_can_only_refuse():
    first = next(plays.plays(ROOT / "playbooks/site.yml"))
    assert first["any_errors_fatal"]
    assert plays.roles_of(first) == []
