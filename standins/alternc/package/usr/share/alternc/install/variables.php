#!/usr/bin/php
<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// What a domain with mail publishes, unless somebody said otherwise.
require '/usr/share/alternc/panel/class/config_nochk.php';
$defaults = ['default_spf_value' => 'a mx ?all', 'default_dmarc_value' => 'p=none;pct=100;rua=mailto:%%ADMINMAIL%%;aspf=r;adkim=r'];
foreach ($defaults as $name => $value) {
    if (!variable_get($name)) {
        variable_set($name, $value, 'Published for new domains; empty: nothing is');
    }
}
