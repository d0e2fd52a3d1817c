# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as the control node sees them: back up now, restore, rebuild what is lost, and drill it every week."""
