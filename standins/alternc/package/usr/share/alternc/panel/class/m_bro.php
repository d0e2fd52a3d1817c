<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_bro
{
    /** The home of whoever is logged in, whatever the name: that is what AlternC's does. */
    function get_user_root($login)
    {
        return getuserpath();
    }

    function get_userid_root($uid)
    {
        return $this->get_user_root($uid);
    }

    /** A path inside the home, without the home when $strip; false when it leaves the home. */
    function convertabsolute($dir, $strip = true)
    {
        $home = getuserpath();
        $root = realpath($home);
        $parent = realpath($root . '/' . dirname($dir));
        if (!str_starts_with((string) $parent, (string) $root) || basename($dir) == '..') {
            return false;
        }
        return rtrim(($strip ? '' : $home) . substr($parent, strlen($root)) . '/' . basename($dir), '/');
    }
}
