<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Reads the settings, opens the database, makes one global object of every class m_*.php, and (for pages) asks who is there.
session_name('AlternC_Panel');
session_start();

foreach (['/etc/alternc/local.sh', '/etc/alternc/my.cnf'] as $file) {
    $mysql_names = ['user' => 'MYSQL_LOGIN', 'password' => 'MYSQL_PWD', 'host' => 'MYSQL_HOST', 'database' => 'MYSQL_DATABASE'];
    foreach (file($file) ?: [] as $line) {
        if (preg_match('/^(\w*) *= *"?(.*?)"?$/', trim($line), $part)) {
            $name = $file == '/etc/alternc/my.cnf' ? ($mysql_names[$part[1]] ?? null) : $part[1];
            if ($name !== null) {
                $GLOBALS["L_$name"] = $part[2];
            }
        }
    }
}
foreach (['DEFAULT_MX' => 'MX', 'NS1_HOSTNAME' => 'NS1', 'NS2_HOSTNAME' => 'NS2'] as $name => $short) {
    $GLOBALS["L_$short"] = $GLOBALS["L_$name"] ?? '';
}
define('ALTERNC_HTML', $L_ALTERNC_HTML);
define('ALTERNC_MAIL', $L_ALTERNC_MAIL);
define('ALTERNC_LOGS', $L_ALTERNC_LOGS);
define('ALTERNC_PANEL', '/usr/share/alternc/panel');
define('ALTERNC_LOCK_JOBS', '/run/alternc/jobs-lock');
define('ALTERNC_LOCK_PANEL', '/var/lib/alternc/panel/nologin.lock');
define('ALTERNC_APACHE2_GEN_TMPL_DIR', '/etc/alternc/templates/apache2/');
define('ALTERNC_VHOST_DIR', '/var/lib/alternc/apache-vhost/');
define('ALTERNC_VHOST_FILE', ALTERNC_VHOST_DIR . 'vhosts_all.conf');
define('ALTERNC_VHOST_MANUALCONF', ALTERNC_VHOST_DIR . 'manual/');

require_once __DIR__ . '/db_mysql.php';
require_once __DIR__ . '/functions.php';

$db = new DB_system();
$cuid = 0;
$classes = [];
foreach (glob(ALTERNC_PANEL . '/class/m_*.php') as $file) {
    $classes[] = substr(basename($file, '.php'), 2);
    require_once $file;
}
$mem = new m_mem();
$hooks = new m_hooks();
$msg = new m_messages();

if (variable_get('force_https', '0', '1: the panel answers over HTTPS only') && ($_SERVER['HTTPS'] ?? '') != 'on' && isset($_SERVER['REQUEST_URI'])) {
    header('Location: https://' . $_SERVER['HTTP_HOST'] . $_SERVER['REQUEST_URI']);
    exit;
}
if (count($_POST) && !defined('NOCSRF')) {
    csrf_check();
}
if (!defined('NOCHECK') && !$mem->checkid()) {
    include ALTERNC_PANEL . '/admin/index.php';
    exit;
}
foreach ($classes as $name) {
    if (!isset($$name)) {
        $class = "m_$name";
        $$name = new $class();
    }
}
variable_get('hosting_tld', '', 'Domain under which members may have a free name');
variable_get('free_domain_enable_dns', '0', '1: the free names have DNS and mail');
variable_get('subadmin_restriction', '0', '1: every administrator sees every account');
variable_get('auth_ip_ftp_default_yes', '1', '1: FTP from everywhere unless a member said from where');
variable_get('sql_max_username_length', '128', 'Longest name of a MySQL account');
variable_get('sql_max_database_length', '64', 'Longest name of a database');
variable_get('help_baseurl', 'https://aide.alternc.org/', 'Where the help is');
