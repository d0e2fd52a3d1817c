<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_ftp
{
    var $srv_proftpd;

    function __construct()
    {
        $this->srv_proftpd = variable_get('fqdn_proftpd', $GLOBALS['L_FQDN'], 'Name that members give to their FTP programs');
    }

    function alternc_password_policy()
    {
        return ['ftp' => 'FTP accounts'];
    }

    function hook_quota_get()
    {
        $row = $GLOBALS['db']->row('SELECT COUNT(*) AS used FROM ftpusers WHERE uid = ?', [$GLOBALS['cuid']]);
        return ['name' => 'ftp', 'description' => 'FTP accounts', 'used' => $row['used'] ?? 0];
    }

    function get_list()
    {
        global $db, $msg, $cuid;
        $rows = $db->rows('SELECT id, name AS login, enabled, homedir AS dir FROM ftpusers WHERE uid = ? ORDER BY name', [$cuid]);
        if (!$rows) {
            $msg->raise('INFO', 'ftp', 'There is no FTP account.');
        }
        return $rows;
    }

    function get_ftp_details($id)
    {
        global $db, $msg, $cuid;
        if (!($row = $db->row('SELECT * FROM ftpusers WHERE uid = ? AND id = ?', [$cuid, $id]))) {
            return $msg->no('ftp', 'There is no such FTP account.');
        }
        $parts = explode('_', $row['name']);
        [$prefix, $login] = count($parts) == 2 ? $parts : [$row['name'], ''];
        return [['id' => $row['id'], 'prefixe' => $prefix, 'login' => $login, 'dir' => substr($row['homedir'], strlen(getuserpath()) + 1),
            'enabled' => $row['enabled']]];
    }

    function prefix_list()
    {
        $domains = $GLOBALS['db']->rows('SELECT domaine FROM domaines WHERE compte = ? ORDER BY domaine', [$GLOBALS['cuid']]);
        return [$GLOBALS['mem']->user['login'], ...array_column($domains, 'domaine')];
    }

    function add_ftp($prefixe, $login, $pass, $dir)
    {
        global $db, $msg, $quota, $cuid;
        if (empty($pass)) {
            return $msg->no('ftp', 'An FTP account needs a password.');
        }
        if (!($checked = $this->check($prefixe, $login, $pass, $dir, 0))) {
            return false;
        }
        if (!$quota->cancreate('ftp')) {
            return $msg->no('ftp', 'You have all the FTP accounts that you may have.');
        }
        $db->query("INSERT INTO ftpusers (name, password, encrypted_password, homedir, uid) VALUES (?, '', ?, ?, ?)",
            [$checked[0], _sha512cr($pass), $checked[1], $cuid]);
        return true;
    }

    function put_ftp_details($id, $prefixe, $login, $pass, $dir)
    {
        global $db;
        if (!$this->get_ftp_details($id) || !($checked = $this->check($prefixe, $login, trim($pass) ? $pass : '', $dir, $id))) {
            return false;
        }
        return $db->query('UPDATE ftpusers SET name = ?, homedir = ?, encrypted_password = COALESCE(?, encrypted_password) WHERE id = ?',
            [$checked[0], $checked[1], trim($pass) ? _sha512cr($pass) : null, $id]);
    }

    function delete_ftp($id)
    {
        global $db, $msg, $cuid;
        if (!($row = $db->row('SELECT name FROM ftpusers WHERE id = ? AND uid = ?', [$id, $cuid]))) {
            return $msg->no('ftp', 'There is no such FTP account.');
        }
        $db->query('DELETE FROM ftpusers WHERE id = ?', [$id]);
        return $row['name'];
    }

    /** Without a status, or with 0 (AlternC compares with ==), the other one than now. */
    function switch_enabled($id, $status = null)
    {
        global $db, $cuid;
        if (!($row = $this->get_ftp_details($id))) {
            return false;
        }
        $status = $status == null ? !$row[0]['enabled'] : $status;
        return $db->query('UPDATE ftpusers SET enabled = ? WHERE uid = ? AND id = ?', [$status ? 1 : 0, $cuid, $id]);
    }

    function alternc_del_domain($dom)
    {
        $GLOBALS['db']->query('DELETE FROM ftpusers WHERE uid = ? AND (name LIKE ? OR name LIKE ?)', [$GLOBALS['cuid'], "$dom\\_%", $dom]);
        return true;
    }

    function alternc_del_member()
    {
        $GLOBALS['db']->query('DELETE FROM ftpusers WHERE uid = ?', [$GLOBALS['cuid']]);
        return true;
    }

    /** The whole name and the directory, made when it is not there; false when something is wrong. */
    private function check($prefixe, $login, $pass, $dir, $id)
    {
        global $db, $msg, $bro, $admin;
        $full = $prefixe . ($login ? "_$login" : '');
        if ($prefixe == '' || !in_array($prefixe, $this->prefix_list())) {
            return $msg->no('ftp', 'The name begins with the login or one of the domains of the account.');
        }
        if (substr_count($full, '_') > 1 || !preg_match('/^[A-Za-z0-9]+[A-Za-z0-9_.-]*$/', $full)) {
            return $msg->no('ftp', 'This is not the name of an FTP account.');
        }
        if ($db->row('SELECT id FROM ftpusers WHERE id != ? AND name = ?', [$id, $full])) {
            return $msg->no('ftp', 'This FTP account exists already.');
        }
        $absolute = getuserpath() . '/' . ltrim((string) $bro->convertabsolute($dir), '/');
        if (!is_dir($absolute) && !@mkdir($absolute, 0777, true)) {
            return $msg->no('ftp', 'The directory cannot be made.');
        }
        return !$pass || $admin->checkPolicy('ftp', $full, $pass) ? [$full, $absolute] : false;
    }
}
