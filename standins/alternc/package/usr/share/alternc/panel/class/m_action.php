<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Work on members' files, queued for do_actions.php (root).
class m_action
{
    function do_action()
    {
        return @touch($GLOBALS['L_INOTIFY_DO_ACTION'] ?? '');  // false, and nothing said, when its directory is gone (fault 3)
    }

    function create_file($file, $content = '', $user = 'root')
    {
        return $this->set('create_file', $user, ['file' => $file, 'content' => $content]);
    }

    function chmod($filename, $perms, $user = 'root')
    {
        return $this->set('chmod', $user, ['filename' => $filename, 'perms' => $perms]);
    }

    function create_dir($dir, $user = 'root')
    {
        return $this->set('create_dir', $user, ['dir' => $dir]);
    }

    function fix_user($uid, $user = 'root')
    {
        return $this->set('fix_user', $user, ['uid' => $uid]);
    }

    function fix_dir($dir, $user = 'root')
    {
        return $this->set('fix_dir', $user, ['dir' => $dir]);
    }

    function fix_file($file, $user = 'root')
    {
        return $this->set('fix_file', $user, ['file' => $file]);
    }

    function del($dir, $user = 'root')
    {
        return $this->set('delete', $user, ['dir' => $dir]);
    }

    function move($src, $dst, $user = 'root')
    {
        return $this->set('move', $user, ['src' => $src, 'dst' => $dst]);
    }

    /** Delete a member's files, or move them where `archive_del_data` says. */
    function archive($archive, $dir = 'html')
    {
        global $cuid, $db;
        if (!($root = variable_get('archive_del_data'))) {
            $this->del($archive);
            return true;
        }
        $row = $db->row('SELECT login FROM membres WHERE uid = ?', [$cuid]);
        $this->move($archive, "$root/" . date('Y-n') . "/$cuid-{$row['login']}/$dir");
        return true;
    }

    function set($type, $user, $parameters)
    {
        global $db;
        $done = $db->query('INSERT INTO actions (type, parameters, creation, user) VALUES (?, ?, NOW(), ?)',
            [strtoupper($type), serialize($parameters), $user]);
        return $done && $this->do_action();
    }

    /** The oldest action that never began: those whose dates are NULL are none of them (fault 4). */
    function get_action()
    {
        $row = $GLOBALS['db']->row('SELECT * FROM actions WHERE end = 0 AND begin = 0 ORDER BY id LIMIT 1');
        return $row ? [$row] : false;
    }

    function get_job()
    {
        $row = $GLOBALS['db']->row('SELECT * FROM actions WHERE begin != 0 AND end = 0');
        return $row ? [$row] : false;
    }

    function begin($id)
    {
        return $GLOBALS['db']->query('UPDATE actions SET begin = NOW() WHERE id = ?', [$id]);
    }

    function finish($id, $return = 0)
    {
        return $GLOBALS['db']->query('UPDATE actions SET end = NOW(), status = ? WHERE id = ?', [$return, $id]);
    }

    function reset_job($id)
    {
        return $GLOBALS['db']->query('UPDATE actions SET end = 0, begin = 0, status = 0 WHERE id = ?', [$id]);
    }

    function cancel($id)
    {
        $this->finish($id, 666);
        return true;
    }
}
