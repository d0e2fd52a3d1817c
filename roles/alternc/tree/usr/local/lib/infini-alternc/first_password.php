<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later

// Replace the password admin of the account admin by one that nobody knows; whoever needs it sets it by name.
$_SERVER += array("REMOTE_ADDR" => "127.0.0.1");
require_once("/usr/share/alternc/panel/class/config_nochk.php");
$db->query("SELECT pass FROM membres WHERE login = 'admin';");
if ($db->next_record() && password_verify("admin", $db->f("pass"))) {
    $hash = password_hash(bin2hex(random_bytes(24)), PASSWORD_BCRYPT);
    $db->query("UPDATE membres SET pass = ? WHERE login = 'admin';", array($hash));
}
