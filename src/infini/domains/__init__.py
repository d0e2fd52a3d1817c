# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaving Gandi: a domain moves without one lost record, one lost mail or one second of darkness.

Read in this order: `zone` (what a zone is), `plan` (what becomes of each rrset, by the rules of `rules.yml`), `states`
(what may happen when, as pure functions), `move` (reads the world, asks `states`, acts, remembers), `ports` (the doors
to registrars, servers and registries).
"""
