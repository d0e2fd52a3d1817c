#!/usr/bin/php
<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Nothing that happens in here changes the exit status: it is 0.
require_once '/usr/share/alternc/panel/class/config_nochk.php';
putenv('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
$dom->update_domains();
