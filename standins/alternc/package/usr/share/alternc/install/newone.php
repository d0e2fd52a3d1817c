#!/usr/bin/php
<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// The first account, admin, whose password is admin.
require '/usr/share/alternc/panel/class/config_nochk.php';
$admin->enabled = 1;
if (!$db->row('SELECT id FROM db_servers')) {
    $db->query("INSERT INTO db_servers SET name = 'Default', host = ?, login = ?, password = ?, client = ?",
        [$L_MYSQL_HOST, $L_MYSQL_LOGIN, $L_MYSQL_PWD, $L_MYSQL_HOST == 'localhost' ? 'localhost' : '%']);
}
$server = $db->row('SELECT MIN(id) AS id FROM db_servers')['id'];
if (!$admin->add_mem('admin', 'admin', 'Administrateur', 'Admin', "postmaster@$L_FQDN", 1, 'default', 0, '', 0, '', $server)) {
    echo $msg->msg_str();
    exit(1);
}
$db->query("UPDATE membres SET su = 1 WHERE login = 'admin'");
exit($quota->synchronise_user_profile() ? 0 : 1);
