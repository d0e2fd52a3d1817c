<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Who is logged in.
class m_mem
{
    var $olduid = 0;
    var $user;
    var $local;

    function alternc_password_policy()
    {
        return ['mem' => 'Password of an account'];
    }

    function checkright()
    {
        return ($this->user['su'] ?? 0) == 1;
    }

    function login($username, $password, $restrictip = 0, $authip_token = false)
    {
        global $db, $msg, $cuid;
        if ($msg->has_msgs('ERROR')) {
            return false;
        }
        $row = $db->row('SELECT * FROM membres WHERE login = ?', [$username]);
        if (!$row) {
            return $msg->no('mem', 'The name or the password is wrong.');
        }
        if (!password_verify($password, $row['pass'])) {
            $db->query('UPDATE membres SET lastfail = lastfail + 1 WHERE uid = ?', [$row['uid']]);
            return $msg->no('mem', 'The name or the password is wrong.');
        }
        if (!$row['enabled']) {
            return $msg->no('mem', 'This account is closed: ask the administrator.');
        }
        $this->user = $row;
        $cuid = $row['uid'];
        if (str_starts_with($row['pass'], '$1$')) {
            $db->query('UPDATE membres SET pass = ? WHERE uid = ?', [password_hash($password, PASSWORD_BCRYPT), $cuid]);
        }
        if (panel_islocked() && $cuid != 2000) {
            return $msg->no('mem', 'The panel is closed for the time of some work.', '', 'ALERT');
        }
        $db->query('DELETE FROM sessions WHERE ts < NOW() - INTERVAL 2 DAY');
        $this->session($restrictip ? get_remote_ip() : '');
        $ip = getenv('REMOTE_HOST') ?: get_remote_ip();
        $db->query('UPDATE membres SET lastlogin = NOW(), lastfail = 0, lastip = ? WHERE uid = ?', [(string) $ip, $cuid]);
        return true;
    }

    /** Be somebody without a password. */
    function setid($id)
    {
        if (!$this->become($id)) {
            return false;
        }
        $this->session((string) get_remote_ip());
        $GLOBALS['quota']->getquota('', true);
        return true;
    }

    function su($uid)
    {
        $this->olduid = $this->olduid ?: $GLOBALS['cuid'];
        return $this->become($uid);
    }

    function unsu()
    {
        if (!$this->olduid) {
            return false;
        }
        $this->su($this->olduid);
        $this->olduid = 0;
        return true;
    }

    function checkid($show_msg = true)
    {
        global $db, $msg, $cuid;
        static $already = false;
        if ($already) {
            return false;
        }
        $already = true;
        if (isset($_REQUEST['username'])) {
            if (empty($_REQUEST['password'])) {
                return $msg->no('mem', 'There is no password.');
            }
            return $this->login($_REQUEST['username'], $_REQUEST['password'], $_REQUEST['restrictip'] ?? 0);
        }
        $row = $db->row('SELECT uid FROM sessions WHERE sid = ?', [$_COOKIE['session'] ?? '']);
        if (!$row) {
            return $show_msg ? $msg->no('mem', 'Nobody is logged in: log in, please.') : false;
        }
        $cuid = $row['uid'];
        if (panel_islocked() && $cuid != 2000) {
            return $msg->no('mem', 'The panel is closed for the time of some work.', '', 'ALERT');
        }
        $this->user = $db->row('SELECT * FROM membres WHERE uid = ?', [$cuid]);
        $this->local = $db->row('SELECT * FROM local WHERE uid = ?', [$cuid]) ?: null;
        return true;
    }

    function del_session()
    {
        global $db, $hooks;
        setcookie('session', '', 0, '/');
        $db->query('DELETE FROM sessions WHERE sid = ?', [$_COOKIE['session'] ?? '']);
        $hooks->invoke('alternc_del_session');
        return true;
    }

    function passwd($oldpass, $newpass, $newpass2)
    {
        global $db, $msg, $cuid, $admin;
        if (!$this->user['canpass']) {
            return $msg->no('mem', 'You may not change your password.');
        }
        if (!password_verify($oldpass, $this->user['pass'])) {
            return $msg->no('mem', 'The old password is wrong.');
        }
        if ($newpass != $newpass2) {
            return $msg->no('mem', 'The new password is not the same twice.');
        }
        if (!$admin->checkPolicy('mem', $this->user['login'], $newpass)) {
            return false;
        }
        $db->query('UPDATE membres SET pass = ? WHERE uid = ?', [password_hash($newpass, PASSWORD_BCRYPT), $cuid]);
        $msg->init_msgs();
        return true;
    }

    private function become($uid)
    {
        global $db, $msg, $cuid, $mysql;
        $row = $db->row('SELECT * FROM membres WHERE uid = ?', [$uid]);
        if (!$row) {
            return $msg->no('mem', 'The name or the password is wrong.');
        }
        $this->user = $row;
        $cuid = $row['uid'];
        $mysql->reload_dbus();
        return true;
    }

    private function session($ip)
    {
        global $db, $msg, $cuid;
        $_REQUEST['session'] = bin2hex(random_bytes(16));
        $db->query('INSERT INTO sessions (sid, ip, uid) VALUES (?, ?, ?)', [$_REQUEST['session'], $ip, $cuid]);
        setcookie('session', $_REQUEST['session'], 0, '/');
        $msg->init_msgs();
        $this->local = $db->row('SELECT * FROM local WHERE uid = ?', [$cuid]) ?: $this->local;
    }
}
