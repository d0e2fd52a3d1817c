# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world a move happens in, made of data: one state, a clock of its own, and the faces that real clients talk to.

Read `world` (what is true), `gandi`, `ovh`, `netim`, `rdap` (who says it, over HTTP), `contract.yml` (what each call
takes and answers, and where we know it from), `faults` (what goes wrong), `journal` (what was asked).
"""
