<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later

/**
 * A plug-in of AlternC: whoever has changed domains by its classes asks for them to be applied when he ends.
 *
 * AlternC itself sets this flag only where the administrator asks for it by name.
 */
class m_infini {
    function __construct() {
        register_shutdown_function(array($this, "ask"));
    }

    /** Set the flag that alternc-apply.path looks at, where something waits; without the database there is nothing to ask. */
    function ask() {
        global $db, $L_INOTIFY_UPDATE_DOMAIN;
        if (posix_geteuid() == 0) {
            return; // alternc-apply itself, which looks at what it has left
        }
        try {
            $waiting = $db->query("SELECT 1 FROM domaines WHERE dns_action <> 'OK' UNION SELECT 1 FROM sub_domaines WHERE web_action <> 'OK' LIMIT 1;");
            if ($waiting && $db->next_record()) {
                @touch($L_INOTIFY_UPDATE_DOMAIN);
            }
        } catch (Exception $gone) {
            return;
        }
    }
}
