<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// The database server that a member's accounts live on.
class DB_users extends DB_Sql
{
    var $HumanHostname;
    var $Host;
    var $Client;

    function __construct()
    {
        global $db, $msg, $cuid;
        $row = $db->row('SELECT s.* FROM db_servers s JOIN membres m ON m.db_server_id = s.id WHERE m.uid = ?', [$cuid]);
        if (!$row) {
            $msg->raise('ERROR', 'db_user', 'The account has no database server.');
            die();
        }
        [$this->HumanHostname, $this->Host, $this->Client] = [$row['name'], $row['host'], $row['client']];
        parent::__construct('mysql', $row['host'], $row['login'], $row['password']);
    }
}

class m_mysql
{
    var $dbus;
    private $rights = ['create_tmp' => 'CREATE TEMPORARY TABLES', 'lock' => 'LOCK TABLES', 'create_view' => 'CREATE VIEW', 'show_view' => 'SHOW VIEW',
        'create_routine' => 'CREATE ROUTINE', 'alter_routine' => 'ALTER ROUTINE'];

    function __construct()
    {
        if (!empty($GLOBALS['cuid'])) {
            $this->reload_dbus();
        }
        variable_get('sql_allow_users_backups', 1, '1: members choose how their databases are saved');
    }

    function reload_dbus()
    {
        $this->dbus = new DB_users();
    }

    function alternc_password_policy()
    {
        return ['mysql' => 'MySQL accounts'];
    }

    function list_db_servers()
    {
        return $GLOBALS['db']->rows('SELECT s.*, COUNT(m.uid) AS nb_users FROM db_servers s LEFT JOIN membres m ON s.id = m.db_server_id GROUP BY s.id');
    }

    function hook_quota_get()
    {
        return ['name' => 'mysql', 'description' => 'MySQL databases', 'used' => count($this->get_dblist())];
    }

    function get_dblist()
    {
        return $GLOBALS['db']->rows('SELECT db, db AS name, bck_mode AS bck, bck_dir AS dir, login, pass FROM db WHERE uid = ? ORDER BY db', [$GLOBALS['cuid']]);
    }

    function get_userslist($all = null)
    {
        return $GLOBALS['db']->rows('SELECT name FROM dbusers WHERE uid = ?' . ($all ? '' : " AND enable = 'ACTIVATED'") . ' ORDER BY name', [$GLOBALS['cuid']]);
    }

    /** The name is taken as it is given; the account that goes with it is always the member's (login_suffix). */
    function add_db($dbn)
    {
        global $db, $msg, $quota, $admin, $cuid;
        if (!$quota->cancreate('mysql')) {
            return $msg->no('mysql', 'You have all the databases that you may have.');
        }
        $dbname = $dbn;
        $suffix = str_contains($dbn, '_') ? explode('_', $dbn)[1] : $dbn;
        if ($suffix == '' || !preg_match('/^[0-9a-z]*$/', $suffix)) {
            return $msg->no('mysql', 'A database is named with letters and digits.');
        }
        if (strlen($dbname) > variable_get('sql_max_database_length', 64)) {
            return $msg->no('mysql', 'The name of the database is too long.');
        }
        if ($db->row('SELECT id FROM db WHERE db = ?', [$dbname])) {
            return $msg->no('mysql', 'The database %s exists already.', $dbname);
        }
        $password = '';
        if (strlen($dbname) > variable_get('sql_max_username_length')) {
            $msg->raise('ALERT', 'mysql', 'The name is too long for an account: make one.');
        } elseif (!$db->row("SELECT name FROM dbusers WHERE name = ? AND enable = 'ACTIVATED'", [$dbname])) {
            $password = create_pass(10, $admin->listPasswordPolicies()['mysql']['classcount']);
            $added = $this->add_user($suffix, $password, $password);
            $msg->raise($added ? 'INFO' : 'ALERT', 'mysql', $added ? 'The account %s was made too.' : 'The account %s could not be made.', $dbname);
        }
        if (!($adm = $db->row("SELECT name, password FROM dbusers WHERE uid = ? AND enable = 'ADMIN'", [$cuid]))) {
            return $msg->no('mysql', 'The member lacks its own administration account.');
        }
        if (!$this->dbus->exec("CREATE DATABASE `$dbname`")) {
            return $msg->no('mysql', 'The database could not be made.');
        }
        $db->query('INSERT INTO db (uid, login, pass, db, bck_mode) VALUES (?, ?, ?, ?, 0)', [$cuid, $adm['name'], $adm['password'], $dbname]);
        $escaped = str_replace('_', '\_', $dbname);
        $this->grant($escaped, $adm['name'], 'ALL PRIVILEGES', $adm['password']);
        if ($password) {
            $this->grant($escaped, $dbname, 'ALL PRIVILEGES', $password);
        }
        return true;
    }

    function del_db($dbname)
    {
        global $db, $msg, $cuid;
        if (!$db->row('SELECT uid FROM db WHERE db = ?', [$dbname])) {
            return $msg->no('mysql', 'There is no such database.');
        }
        $db->query('DELETE FROM size_db WHERE db = ?', [$dbname]);
        $db->query('DELETE FROM db WHERE uid = ? AND db = ?', [$cuid, $dbname]);
        $this->dbus->query("DROP DATABASE `$dbname`");
        $this->dbus->query('DELETE FROM mysql.db WHERE Db = ?', [str_replace('_', '\_', $dbname)]);
        if (!$this->dbus->row('SELECT User FROM mysql.db WHERE User = ?', [$dbname])) {
            $this->del_user($dbname, false, true);
        }
        return true;
    }

    function add_user($usern, $password, $passconf)
    {
        global $db, $msg, $mem, $admin, $cuid;
        $usern = trim($usern);
        $user = $usern == $mem->user['login'] ? $usern : $mem->user['login'] . "_$usern";
        if (!$usern || !$password) {
            return $msg->no('mysql', 'An account needs a name and a password.', '', 'ALERT');
        }
        if (!preg_match('/^[0-9a-z]/', $usern)) {
            return $msg->no('mysql', 'An account is named with letters and digits.');
        }
        if (strlen($user) > variable_get('sql_max_username_length', 16)) {
            return $msg->no('mysql', 'The name of the account is too long.');
        }
        if ($db->row('SELECT name FROM dbusers WHERE name = ?', [$user])) {
            return $msg->no('mysql', 'This account exists already.');
        }
        if ($password != $passconf) {
            return $msg->no('mysql', 'The password is not the same twice.');
        }
        if (!$admin->checkPolicy('mysql', $user, $password)) {
            return false;
        }
        $db->query("INSERT INTO dbusers (uid, name, password, enable) VALUES (?, ?, ?, 'ACTIVATED')", [$cuid, $user, $password]);
        $this->grant('*', $user, 'USAGE', $password);
        return true;
    }

    function change_user_password($usern, $password, $passconf)
    {
        global $db, $msg, $admin, $cuid;
        $usern = trim($usern);
        if ($password != $passconf || !$password) {
            return $msg->no('mysql', 'The password is not the same twice.');
        }
        if (!$admin->checkPolicy('mysql', $usern, $password)) {
            return false;
        }
        $this->dbus->query('SET PASSWORD FOR ' . $this->account($usern) . ' = PASSWORD(?)', [$password]);
        $db->query('UPDATE dbusers SET password = ? WHERE name = ? AND uid = ?', [$password, $usern, $cuid]);
        return true;
    }

    function del_user($user, $all = false, $caller_is_deldb = false)
    {
        global $db, $msg, $cuid;
        $found = $all ? $db->row('SELECT name FROM dbusers WHERE uid = ?', [$cuid])
            : $db->row("SELECT name FROM dbusers WHERE name = ? AND enable = 'ACTIVATED'", [$user]);
        if (!$found) {
            return $caller_is_deldb ? false : $msg->no('mysql', 'There is no such account.');
        }
        $this->dbus->query('REVOKE ALL PRIVILEGES ON *.* FROM ' . $this->account($user));
        foreach (['mysql.db', 'mysql.user'] as $table) {
            $this->dbus->query("DELETE FROM $table WHERE User = ? AND Host = ?", [$user, $this->dbus->Client]);
        }
        $this->dbus->query('FLUSH PRIVILEGES');
        $db->query('DELETE FROM dbusers WHERE uid = ? AND name = ?', [$cuid, $user]);
        if ($caller_is_deldb) {
            $msg->raise('INFO', 'mysql', 'The account %s was deleted too.', $user);
        }
        return true;
    }

    function grant($base, $user, $rights = null, $pass = null, $table = '*')
    {
        global $db, $msg;
        if (!preg_match('/^[0-9a-z_*\\\\]*$/', $base) || !preg_match('/^[a-zA-Z,\s]*$/', $rights ?: '') || !preg_match('/^[0-9a-z]/', $user)) {
            return $msg->no('mysql', 'The database, the rights or the account is not named well.');
        }
        if (!$db->row('SELECT name FROM dbusers WHERE name = ?', [$user])) {
            return $msg->no('mysql', 'There is no such account.');
        }
        $on = $base == '*' ? '*' : "`$base`";
        $sql = 'GRANT ' . ($rights ?: 'ALL PRIVILEGES') . " ON $on.$table TO " . $this->account($user);
        return $this->dbus->query($sql . ($pass ? ' IDENTIFIED BY ' . $db->quote($pass) : '')) ?: $msg->no('mysql', 'The rights could not be given.');
    }

    function available_sql_rights()
    {
        return ['select', 'insert', 'update', 'delete', 'create', 'drop', 'references', 'index', 'alter', 'create_tmp', 'lock', 'create_view',
            'show_view', 'create_routine', 'alter_routine', 'execute', 'event', 'trigger'];
    }

    function set_user_rights($user, $dbn, $rights)
    {
        $escaped = str_replace('_', '\_', $dbn);
        if ($this->dbus->row('SELECT User FROM mysql.db WHERE User = ? AND Db = ?', [$user, $escaped])) {
            $this->dbus->query("REVOKE ALL PRIVILEGES ON `$escaped`.* FROM " . $this->account($user));
        }
        $known = array_intersect($rights, $this->available_sql_rights());
        if ($known) {
            $this->grant($escaped, $user, implode(',', array_map(fn($one) => $this->rights[$one] ?? strtoupper($one), $known)));
        }
        return true;
    }

    function get_user_dblist($user)
    {
        global $msg;
        if (!$this->dbus->row('SELECT User FROM mysql.user WHERE User = ? AND Host = ?', [$user, $this->dbus->Client])) {
            return $msg->no('mysql', 'There is no such account.');
        }
        $list = [];
        foreach ($this->get_dblist() as $one) {
            $row = $this->dbus->row('SELECT * FROM mysql.db WHERE User = ? AND Host = ? AND Db = ?',
                [$user, $this->dbus->Client, str_replace('_', '\_', $one['db'])]);
            $entry = ['db' => $one['db']];
            foreach ($this->available_sql_rights() as $right) {
                $column = ucfirst(['create_tmp' => 'create_tmp_table', 'lock' => 'lock_tables'][$right] ?? $right) . '_priv';
                $entry[$right] = $row[$column] ?? 'N';
            }
            $list[] = $entry;
        }
        return $list;
    }

    function alternc_add_member()
    {
        $GLOBALS['db']->query("INSERT INTO dbusers (uid, name, password, enable) VALUES (?, ?, ?, 'ADMIN')",
            [$GLOBALS['cuid'], $GLOBALS['cuid'] . '_myadm', create_pass()]);
        return true;
    }

    function alternc_del_member()
    {
        array_map(fn($one) => $this->del_db($one['db']), $this->get_dblist());
        array_map(fn($one) => $this->del_user($one['name'], 1, true), $this->get_userslist(1));
        return true;
    }

    private function account($user)
    {
        return $GLOBALS['db']->quote($user) . '@' . $GLOBALS['db']->quote($this->dbus->Client);
    }
}
