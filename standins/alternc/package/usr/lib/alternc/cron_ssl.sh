#!/usr/bin/php
<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// PHP under this name in AlternC too.
require_once '/usr/share/alternc/panel/class/config_nochk.php';
if (posix_getuid() != 0) {
    echo "Only root may.\n";
    exit(-1);
}
$ssl->cron_new_certs();
