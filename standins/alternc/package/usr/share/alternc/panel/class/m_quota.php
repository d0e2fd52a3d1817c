<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_quota
{
    var $disk = [];
    var $disk_quota_enable;
    var $disk_quota_not_blocking;
    var $quotas = [];

    function __construct()
    {
        $this->disk_quota_enable = variable_get('disk_quota_enable', 1, '1: the room that files take is counted');
        if ($this->disk_quota_enable) {
            $this->disk = ['web' => 'web'];
            $this->disk_quota_not_blocking = variable_get('disk_quota_not_blocking', 1, '1: it is shown and stops nobody');
        }
    }

    function cancreate($ressource = '')
    {
        $quota = $this->getquota($ressource);
        return $quota['u'] < $quota['t'];
    }

    /** name => description, the disk first. */
    function qlist()
    {
        $disk = array_map(fn($name) => "quota_$name", $this->disk);
        return $disk + array_column($this->getquota(), 'description', 'name');
    }

    /** Everything the member may have (t) and has (u), remembered for the process; 0 for a quota that does not exist. */
    function getquota($ressource = '', $recheck = false)
    {
        global $db, $cuid, $get_quota_cache, $hooks;
        if ($recheck) {
            $get_quota_cache = null;
            $this->quotas = [];
        }
        if (empty($get_quota_cache[$cuid])) {
            foreach ($hooks->invoke('hook_quota_get') as $one) {
                $this->quotas[$one['name']] = $one + ['u' => $one['used'], 't' => 0];
            }
            foreach ($this->disk as $name) {
                $used = $db->row('SELECT SUM(size) AS sum FROM size_web WHERE uid = ?', [$cuid])['sum'] ?? null;
                $this->quotas[$name] = ['name' => $name, 'description' => 'Web disk space', 's' => $used, 't' => null, 'u' => $used];
            }
            foreach ($db->rows('SELECT name, total FROM quotas WHERE uid = ?', [$cuid]) as $row) {
                $this->quotas[$row['name']]['t'] = $row['total'];
            }
            $get_quota_cache[$cuid] = $this->quotas;
        }
        $this->quotas = $get_quota_cache[$cuid];
        return $ressource ? $this->quotas[$ressource] ?? 0 : $this->quotas;
    }

    function setquota($ressource, $size)
    {
        global $db, $msg, $cuid;
        $size = floatval($size) == 0 ? '0' : $size;
        if (!$this->disk_quota_not_blocking && isset($this->disk[$ressource])) {
            exec('sudo /usr/lib/alternc/quota_edit ' . intval($cuid) . ' ' . intval($size));
            exec('sudo /usr/lib/alternc/quota_get ' . intval($cuid), $kept);
            if (($kept[1] ?? null) != $size) {
                return $msg->no('quota', 'The disk quota could not be written.');
            }
        }
        $db->query('INSERT INTO quotas (uid, name, total) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE total = VALUES(total)',
            [$cuid, $ressource, $size]);
        return true;
    }

    function delquotas()
    {
        $GLOBALS['db']->query('DELETE FROM quotas WHERE uid = ?', [$GLOBALS['cuid']]);
        return true;
    }

    function getdefaults()
    {
        $defaults = [];
        foreach ($GLOBALS['db']->rows('SELECT value, quota, type FROM defquotas ORDER BY type, quota') as $row) {
            $defaults[$row['type']][$row['quota']] = $row['value'];
        }
        return $defaults;
    }

    function setdefaults($newq)
    {
        $known = $this->qlist();
        foreach ($newq as $type => $quotas) {
            foreach (array_intersect_key($quotas, $known) as $name => $value) {
                $GLOBALS['db']->query('REPLACE INTO defquotas (value, quota, type) VALUES (?, ?, ?)', [$value, $name, $type]);
            }
        }
        return true;
    }

    function addtype($type)
    {
        global $db, $msg;
        $type = strtolower($type);
        if (!$type) {
            return false;
        }
        if (!preg_match('/^[a-z0-9]*$/', $type)) {
            return $msg->no('quota', 'A profile is named with letters and digits.');
        }
        foreach (array_keys($this->qlist()) as $name) {
            if (!$db->query('INSERT IGNORE INTO defquotas (quota, type) VALUES (?, ?)', [$name, $type]) || !$db->affected_rows()) {
                return false;
            }
        }
        return true;
    }

    function listtype()
    {
        return array_column($GLOBALS['db']->rows('SELECT DISTINCT type FROM defquotas ORDER BY type'), 'type');
    }

    function deltype($type)
    {
        global $db;
        return $db->query("UPDATE membres SET type = 'default' WHERE type = ?", [$type])
            && $db->query('DELETE FROM defquotas WHERE type = ?', [$type]);
    }

    /** Give the member what the profile says, 0 for what it does not say. */
    function addquotas()
    {
        global $db, $cuid;
        $type = $db->row('SELECT type FROM membres WHERE uid = ?', [$cuid])['type'] ?? '';
        foreach (array_keys($this->qlist()) as $name) {
            $row = $db->row('SELECT value FROM defquotas WHERE quota = ? AND type = ?', [$name, $type]);
            $this->setquota($name, $row ? $row['value'] : 0);
        }
        return true;
    }

    /** Nobody has less than the profile says. */
    function synchronise_user_profile()
    {
        return $GLOBALS['db']->query('INSERT INTO quotas SELECT m.uid, d.quota, d.value FROM membres m JOIN defquotas d ON m.type = d.type'
            . ' ON DUPLICATE KEY UPDATE total = GREATEST(d.value, quotas.total)');
    }

    function get_size_web_sum_user($uid)
    {
        return $GLOBALS['db']->row('SELECT SUM(size) AS sum FROM size_web WHERE uid = ?', [$uid])['sum'] ?? null;
    }

    function hook_admin_add_member()
    {
        $this->addquotas();
        $this->getquota('', true);
    }

    function hook_admin_del_member()
    {
        $this->delquotas();
    }
}
