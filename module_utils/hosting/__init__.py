# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thinking that travels to the hosts: pure Python 3.9 and the standard library."""
