#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
/usr/lib/alternc/update_domains.php
