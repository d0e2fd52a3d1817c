<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_admin
{
    var $enabled = 0;
    var $archive = '';

    function __construct()
    {
        global $db, $cuid;
        $this->enabled = $db->row('SELECT su FROM membres WHERE uid = ?', [$cuid])['su'] ?? false;
        $this->archive = variable_get('archive_del_data', '', 'Where the files of deleted accounts go; empty: they are deleted');
    }

    function alternc_password_policy()
    {
        return ['adm' => 'Administration'];
    }

    function stop_if_jobs_locked()
    {
        if (file_exists(ALTERNC_LOCK_JOBS)) {
            die('No job runs while ' . ALTERNC_LOCK_JOBS . " is there: alternc.install runs, or did not end well.\n");  // rc 0 (fault 5)
        }
    }

    function get_uid_by_login($login)
    {
        return $GLOBALS['db']->row('SELECT uid FROM membres WHERE login = ?', [$login])['uid'] ?? null;
    }

    function get_login_by_uid($uid)
    {
        return $GLOBALS['db']->row('SELECT login FROM membres WHERE uid = ?', [$uid])['login'] ?? null;
    }

    function get($uid, $recheck = false)
    {
        global $db, $msg;
        if (!$this->allowed()) {
            return false;
        }
        $row = $db->row('SELECT m.uid AS muid, l.*, m.*, p.login AS parentlogin, s.name AS db_server_name,'
            . ' m.renewed + INTERVAL m.duration MONTH AS expiry FROM membres m LEFT JOIN membres p ON p.uid = m.creator'
            . ' LEFT JOIN db_servers s ON s.id = m.db_server_id LEFT JOIN local l ON l.uid = m.uid WHERE m.uid = ?', [$uid]);
        return $row ?: $msg->no('admin', 'There is no such account.');
    }

    function add_mem($login, $pass, $nom, $prenom, $mail, $canpass, $type, $duration, $notes, $force, $create_dom, $db_server_id)
    {
        global $msg, $cuid, $mem, $hooks, $action, $L_MYSQL_DATABASE, $L_MYSQL_LOGIN;
        if (!$this->allowed()) {
            return false;
        }
        if (empty($db_server_id)) {
            return $msg->no('admin', 'An account needs a database server.');
        }
        if ($login == '' || $pass == '' || (!$force && $mail == '')) {
            return $msg->no('admin', 'A name, a password and an address are needed.');
        }
        if (!$force && checkmail($mail)) {
            return $msg->no('admin', 'The mail address is not one.');
        }
        $login = strtolower($login);
        if (!preg_match('/^[a-z0-9]+$/', $login)) {
            return $msg->no('admin', 'A login has only letters and digits.');
        }
        if (strlen($login) > 14) {
            return $msg->no('admin', 'A login has 14 characters at most.');
        }
        if (in_array($login, [$L_MYSQL_DATABASE, $L_MYSQL_LOGIN, 'mysql', 'root'])) {
            return $msg->no('admin', 'This login is taken by the system.');
        }
        foreach (array_filter($hooks->invoke('hook_before_alternc_add_member', [$login]), fn($one) => $one !== null) as $reason) {
            return $msg->no('admin', 'The account %s cannot be made: %s', [$login, $reason]);
        }
        $db = new DB_system();
        if ($db->row('SELECT uid FROM membres WHERE login = ?', [$login])) {
            return $msg->no('admin', 'This login exists already.');
        }
        $uid = max(2000, (int) $db->row('SELECT MAX(uid) + 1 AS next FROM membres')['next']);
        $db->query('INSERT INTO membres (uid, login, pass, mail, creator, canpass, type, created, notes, db_server_id)'
            . ' VALUES (?, ?, ?, ?, ?, ?, ?, NOW(), ?, ?)',
            [$uid, $login, password_hash($pass, PASSWORD_BCRYPT), $mail, $cuid, $canpass, $type, $notes, $db_server_id]);
        $db->query('INSERT INTO local (uid, nom, prenom) VALUES (?, ?, ?)', [$uid, $nom, $prenom]);
        $this->renew_update($uid, $duration);
        $action->create_dir(getuserpath($login));
        $action->fix_user($uid);
        $mem->su($uid);
        $hooks->invoke('alternc_add_member');
        $hooks->invoke('hook_admin_add_member', [], ['quota']);  // before the others: they may need room
        $hooks->invoke('hook_admin_add_member');
        $mem->unsu();
        if (!empty($create_dom)) {
            $this->add_shared_domain($uid, $create_dom);
        }
        return $uid;
    }

    function add_shared_domain($u, $domain_name)
    {
        global $msg, $dom, $mem;
        if (!$mem->checkright()) {
            return $msg->no('admin', 'Only an administrator may.');
        }
        $free = $domain_name == variable_get('hosting_tld');
        if (!$free && !in_array($domain_name, $dom->enum_domains())) {
            return $msg->no('admin', 'This domain is not yours to share.');
        }
        $mem->su($u);
        $dom->lock();
        $dom->add_domain($mem->user['login'] . '.' . ltrim($domain_name, '.'), variable_get('free_domain_enable_dns') || !$free ? 1 : 0, 1, 1);
        $dom->unlock();
        $mem->unsu();
        return true;
    }

    function update_mem($uid, $mail, $nom, $prenom, $pass, $enabled, $canpass, $type = 'default', $duration = 0, $notes = '', $reset_quotas = false)
    {
        global $db, $quota;
        if (!$this->allowed()) {
            return false;
        }
        $old = $this->get($uid);
        $db->query('UPDATE local SET nom = ?, prenom = ? WHERE uid = ?', [$nom, $prenom, $uid]);
        $db->query('UPDATE membres SET mail = ?, canpass = ?, enabled = ?, type = ?, notes = ?, pass = COALESCE(?, pass) WHERE uid = ?',
            [$mail, $canpass, $enabled, $type, $notes, $pass ? password_hash($pass, PASSWORD_BCRYPT) : null, $uid]);
        if ($reset_quotas === 'on' || $type != ($old['type'] ?? null)) {
            $quota->addquotas();  // those of whoever is logged in, as AlternC does: su() to the member first
            $quota->synchronise_user_profile();
        }
        $this->renew_update($uid, $duration);
        return true;
    }

    function lock_mem($uid)
    {
        return $this->allowed() && $GLOBALS['db']->query('UPDATE membres SET enabled = 0 WHERE uid = ?', [$uid]);
    }

    function unlock_mem($uid)
    {
        return $this->allowed() && $GLOBALS['db']->query('UPDATE membres SET enabled = 1 WHERE uid = ?', [$uid]);
    }

    function del_mem($uid)
    {
        global $mem, $dom, $hooks, $action;
        if (!$this->allowed()) {
            return false;
        }
        $db = new DB_system();
        $member = $this->get($uid);
        $mem->su($uid);
        $dom->admin_del_member();
        $action->archive(getuserpath($member['login']));
        $hooks->invoke('alternc_del_member');
        $hooks->invoke('hook_admin_del_member');
        $db->query('DELETE FROM membres WHERE uid = ?', [$uid]);
        $db->query('DELETE FROM local WHERE uid = ?', [$uid]);
        $mem->unsu();
        $db->query('UPDATE membres SET creator = 2000 WHERE creator = ?', [$uid]);
        return true;
    }

    /** 0 months: the account has no end. */
    function renew_update($uid, $duration)
    {
        global $db;
        if ($duration == 0) {
            return $db->query('UPDATE membres SET duration = NULL, renewed = NULL WHERE uid = ?', [$uid]);
        }
        return $db->query('UPDATE membres SET duration = ?, renewed = COALESCE(renewed, NOW()) WHERE uid = ?', [$duration, $uid]);
    }

    function normal2su($uid)
    {
        return $this->change_su($uid, 0, 1);
    }

    function su2normal($uid)
    {
        return $this->change_su($uid, 1, 0);
    }

    /** Turn the protection of a domain over. */
    function dom_lock($domain)
    {
        global $db, $msg;
        if (!$db->row('SELECT compte FROM domaines WHERE domaine = ?', [$domain])) {
            return $msg->no('dom', 'There is no domain %s.', $domain);
        }
        $db->query('UPDATE domaines SET noerase = 1 - noerase WHERE domaine = ?', [$domain]);
        return true;
    }

    function addtld($tld, $mode)
    {
        global $db, $msg;
        if (!$tld) {
            return $msg->no('admin', 'The TLD has no name.');
        }
        if ($db->row('SELECT tld FROM tld WHERE tld = ?', [trim($tld)])) {
            return $msg->no('admin', 'This TLD exists already.');
        }
        $db->query('INSERT INTO tld (tld, mode) VALUES (?, ?)', [ltrim(trim($tld), '.'), intval($mode)]);
        return true;
    }

    function edittld($tld, $mode)
    {
        return $this->known_tld($tld) && $GLOBALS['db']->query('UPDATE tld SET mode = ? WHERE tld = ?', [intval($mode), $tld]);
    }

    function deltld($tld)
    {
        return $this->known_tld($tld) && $GLOBALS['db']->query('DELETE FROM tld WHERE tld = ?', [$tld]);
    }

    /** The rows of `policy`: one for each that a class asks for, and no other. */
    function listPasswordPolicies()
    {
        global $db, $hooks;
        $kept = array_column($db->rows('SELECT * FROM policy'), null, 'name');
        $policies = [];
        foreach (array_merge(...array_values($hooks->invoke('alternc_password_policy'))) as $name => $description) {
            if (!isset($kept[$name])) {
                $db->query('INSERT INTO policy (name, minsize, maxsize, classcount, allowlogin) VALUES (?, 0, 64, 0, 0)', [$name]);
                $kept[$name] = ['minsize' => 0, 'maxsize' => 64, 'classcount' => 0, 'allowlogin' => 0];
            }
            $policies[$name] = $kept[$name] + ['description' => $description];
        }
        foreach (array_diff_key($kept, $policies) as $name => $row) {
            $db->query('DELETE FROM policy WHERE name = ?', [$name]);
        }
        return $policies;
    }

    function editPolicy($policy, $minsize, $maxsize, $classcount, $allowlogin)
    {
        global $db;
        [$min, $max, $classes] = [intval($minsize), intval($maxsize), intval($classcount)];
        if (!$db->row('SELECT name FROM policy WHERE name = ?', [$policy]) || $min < 0 || $max > 64 || $max < $min || $classes < 0 || $classes > 4) {
            return false;
        }
        return $db->query('UPDATE policy SET minsize = ?, maxsize = ?, classcount = ?, allowlogin = ? WHERE name = ?',
            [$min, $max, $classes, $allowlogin ? 1 : 0, $policy]);
    }

    function checkPolicy($policy, $login, $password, $canbeempty = false)
    {
        global $msg;
        if (empty($login)) {
            return $msg->no('admin', 'There is no login.', '', 'ALERT');
        }
        if (empty($password)) {
            return $canbeempty ? true : $msg->no('admin', 'There is no password.', '', 'ALERT');
        }
        if (!($rule = $this->listPasswordPolicies()[$policy] ?? null)) {
            return $msg->no('admin', 'There is no such password policy.');
        }
        if (strlen($password) < $rule['minsize']) {
            return $msg->no('admin', 'The password is too short for the policy.');
        }
        if (strlen($password) > $rule['maxsize']) {
            return $msg->no('admin', 'The password is too long for the policy.');
        }
        if (!$rule['allowlogin']) {
            foreach (array_filter([...preg_split('/[@_-]/', $login), $login]) as $part) {
                if (str_contains($password, $part) || str_contains($part, $password)) {
                    return $msg->no('admin', 'The policy wants a password without the login in it, and the other way round.');
                }
            }
        }
        $classes = array_filter(['/[a-z]/', '/[A-Z]/', '/[0-9]/', '/[!-\/:-@[-`]/', '/[^!-z]/'], fn($one) => preg_match($one, $password));
        if (count($classes) < $rule['classcount']) {
            return $msg->no('admin', 'The policy wants more kinds of characters in a password.');
        }
        return true;
    }

    private function allowed()
    {
        return $this->enabled ? true : $GLOBALS['msg']->no('admin', 'Only an administrator may.');
    }

    private function change_su($uid, $from, $to)
    {
        global $db, $msg;
        $row = $db->row('SELECT su FROM membres WHERE uid = ?', [$uid]);
        if (!$row || $row['su'] != $from) {
            return $msg->no('admin', $row ? 'The account is so already.' : 'There is no such account.');
        }
        return $db->query('UPDATE membres SET su = ? WHERE uid = ?', [$to, $uid]);
    }

    private function known_tld($tld)
    {
        global $db, $msg;
        return $db->row('SELECT tld FROM tld WHERE tld = ?', [$tld]) ? true : $msg->no('admin', 'There is no such TLD.');
    }
}
