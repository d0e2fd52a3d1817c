<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_mail
{
    var $specialchars = ['"', "'", '\\', '/'];
    var $forbiddenchars = ['"', "'", '\\', '/', '?', '!', '*', '$', '|', '#', '+'];
    var $srv_postfix;
    var $srv_dovecot;
    var $shouldreloaddkim;

    function __construct()
    {
        $this->srv_postfix = variable_get('fqdn_postfix', $GLOBALS['L_FQDN'], 'Name that members give to their mail programs (SMTP)');
        $this->srv_dovecot = variable_get('fqdn_dovecot', $GLOBALS['L_FQDN'], 'Name that members give to their mail programs (IMAP, POP)');
    }

    function alternc_password_policy()
    {
        return ['pop' => 'Password of a mailbox'];
    }

    function hook_quota_get()
    {
        $row = $GLOBALS['db']->row("SELECT COUNT(*) AS used FROM address a JOIN domaines d ON a.domain_id = d.id WHERE d.compte = ? AND a.type = ''",
            [$GLOBALS['cuid']]);
        return ['name' => 'mail', 'description' => 'Mail addresses', 'used' => $row['used'] ?? 0];
    }

    function enum_domain_mails($dom_id = null, $search = '', $offset = 0, $count = 30, $show_systemmails = false)
    {
        global $db, $msg;
        $like = '%' . trim($search) . '%';
        $rows = $db->rows($this->details() . ' WHERE a.domain_id = ? AND (a.address LIKE ? OR r.recipients LIKE ? OR ? = \'%%\')'
            . ($show_systemmails ? '' : " AND a.type = ''") . ' ORDER BY a.address'
            . ($count == -1 ? '' : ' LIMIT ' . intval($offset) . ', ' . intval($count)), [$dom_id, $like, $like, $like]);
        return $rows ?: $msg->no('mail', 'No address is so.') ?: [];
    }

    function get_details($mail_id)
    {
        return $this->is_it_my_mail($mail_id) ? $GLOBALS['db']->row($this->details() . ' WHERE a.id = ?', [intval($mail_id)]) : false;
    }

    function is_it_my_mail($mail_id)
    {
        global $db, $msg, $cuid;
        $row = $db->row("SELECT CONCAT(a.address, '@', d.domaine) AS email FROM address a JOIN domaines d ON d.id = a.domain_id"
            . ' WHERE a.id = ? AND d.compte = ?', [intval($mail_id), $cuid]);
        return $row ? $row['email'] : $msg->no('mail', 'This address is not yours.');
    }

    function create($dom_id, $mail, $type = '', $dontcheck = false)
    {
        global $db, $msg, $dom, $quota, $hooks;
        if (!($domain = $dom->get_domain_byid($dom_id))) {
            return false;
        }
        if (!$dontcheck && checkmail("$mail@$domain")) {
            return $msg->no('mail', 'This is not a mail address.');
        }
        if (in_array(false, $hooks->invoke('hook_mail_cancreate', [$dom_id, $mail]), true)) {
            return false;
        }
        if ($type == '' && !$quota->cancreate('mail')) {
            return $msg->no('mail', 'You have all the addresses that you may have.', '', 'ALERT');
        }
        if ($db->row('SELECT id FROM address WHERE domain_id = ? AND address = ?', [$dom_id, $mail])) {
            return $msg->no('mail', 'This address exists already.');
        }
        $db->query('INSERT INTO address (domain_id, address, type) VALUES (?, ?, ?)', [$dom_id, $mail, $type]);
        return $db->lastid() ?: $msg->no('mail', 'The address could not be written.');
    }

    function set_passwd($mail_id, $pass, $canbeempty = false)
    {
        global $db, $admin;
        if (!($email = $this->is_it_my_mail($mail_id)) || !$admin->checkPolicy('pop', $email, $pass, $canbeempty)) {
            return false;
        }
        return $db->query('UPDATE address SET password = ? WHERE id = ?', [empty($pass) ? null : _dovecot_hash($pass), $mail_id]);
    }

    function enable($mail_id)
    {
        return $this->is_it_my_mail($mail_id) && $GLOBALS['db']->query('UPDATE address SET enabled = 1 WHERE id = ?', [$mail_id]);
    }

    function disable($mail_id)
    {
        return $this->is_it_my_mail($mail_id) && $GLOBALS['db']->query('UPDATE address SET enabled = 0 WHERE id = ?', [$mail_id]);
    }

    /** A mailbox or not, its quota, and the addresses that get a copy (separated by anything white). */
    function set_details($mail_id, $islocal, $quotamb, $recipients, $delivery = 'dovecot', $dontcheck = false)
    {
        global $db, $msg;
        if (!($me = $this->get_details($mail_id))) {
            return false;
        }
        if ($me['islocal'] && !$islocal) {
            $db->query("UPDATE mailbox SET mail_action = 'DELETE' WHERE address_id = ?", [$mail_id]);
        }
        if (!$me['islocal'] && $islocal) {
            if (strpbrk($me['address'], implode('', $this->forbiddenchars)) !== false) {
                return $msg->no('mail', 'An address with such characters can have no mailbox.');
            }
            $path = $delivery == 'dovecot' ? ALTERNC_MAIL . '/' . substr($me['address'] . '_', 0, 1) . "/{$me['address']}_{$me['domain']}" : '';
            $db->query('INSERT INTO mailbox SET address_id = ?, delivery = ?, path = ?', [$mail_id, $delivery, $path]);
        }
        if ($islocal) {
            $db->query("UPDATE mailbox SET mail_action = 'OK' WHERE mail_action = 'DELETE' AND address_id = ?", [$mail_id]);
            $least = intval($me['used'] / 1024 / 1024) + 1;
            if ($quotamb != 0 && $quotamb < $least) {
                $quotamb = $least;
                $msg->raise('ALERT', 'mail', 'The mailbox is fuller than this quota: it has what it uses.');
            }
            $db->query('UPDATE mailbox SET quota = ? WHERE address_id = ?', [$quotamb, $mail_id]);
        }
        $kept = '';
        foreach (preg_split('/\s+/', $recipients) as $one) {
            if ($one != '' && $one != "{$me['address']}@{$me['domain']}" && ($dontcheck || !checkmail($one))) {
                $kept .= "$one\n";
            }
        }
        $db->query('DELETE FROM recipient WHERE address_id = ?', [$mail_id]);
        if ($kept) {
            $db->query('INSERT INTO recipient SET address_id = ?, recipients = ?', [$mail_id, $kept]);
        } elseif (!$islocal) {
            $msg->raise('ALERT', 'mail', 'The address has no mailbox and sends nothing on: its mail is refused.');
        }
        return true;
    }

    function create_alias($dom_id, $m, $alias, $type = '', $dontcheck = false)
    {
        $id = $this->create($dom_id, $m, $type, $dontcheck);
        return $id ? $this->set_details($id, 0, 0, $alias, 'dovecot', $dontcheck) : false;
    }

    /** With a mailbox: marked, update_mails.sh does the rest. Without: gone at once. */
    function delete($mail_id)
    {
        global $db, $msg, $hooks;
        $mail_id = intval($mail_id);
        if (!($mail = $this->is_it_my_mail($mail_id))) {
            return false;
        }
        $hooks->invoke('hook_mail_delete', [$mail_id, $mail]);
        $me = $this->get_details($mail_id);
        if ($me['mail_action'] != 'OK' || ($me['islocal'] && $me['mailbox_action'] != 'OK')) {
            return $msg->no('mail', 'The address %s is being deleted already.', $mail);
        }
        if ($me['islocal']) {
            $db->query("UPDATE address SET mail_action = 'DELETE', enabled = 0 WHERE id = ?", [$mail_id]);
            $db->query("UPDATE mailbox SET mail_action = 'DELETE' WHERE address_id = ?", [$mail_id]);
        } else {
            $db->query('DELETE FROM recipient WHERE address_id = ?', [$mail_id]);
            $db->query('DELETE FROM address WHERE id = ?', [$mail_id]);
        }
        return true;
    }

    function undelete($mail_id)
    {
        global $db, $msg;
        if (!($me = $this->get_details($mail_id))) {
            return false;
        }
        if ($me['type'] != '' || $me['mailbox_action'] != 'DELETE' || $me['mail_action'] != 'DELETE') {
            return $msg->no('mail', 'The address %s cannot come back.', $me['address']);
        }
        $db->query("UPDATE address SET mail_action = 'OK', enabled = 1 WHERE id = ?", [$me['id']]);
        $db->query("UPDATE mailbox SET mail_action = 'OK' WHERE address_id = ?", [$me['id']]);
        return true;
    }

    function catchall_getinfos($domain_id)
    {
        global $db, $dom;
        $row = $db->row("SELECT a.id, r.recipients FROM address a JOIN recipient r ON r.address_id = a.id WHERE a.domain_id = ? AND a.address = ''",
            [$domain_id]);
        $target = $row ? $row['recipients'] : '';
        return ['mail_id' => $row ? $row['id'] : '', 'domain' => $dom->get_domain_byid($domain_id), 'target' => $target,
            'type' => $target == '' ? 'none' : ($target[0] == '@' ? 'domain' : 'mail')];
    }

    function catchall_del($domain_id)
    {
        $id = $this->catchall_getinfos($domain_id)['mail_id'];
        return $id ? $this->delete($id) : false;
    }

    function catchall_set($domain_id, $target)
    {
        global $msg;
        $target = rtrim($target);
        if ($target != '' && !str_contains($target, '@')) {
            $target = "@$target";
        }
        if (!str_starts_with($target, '@') && checkmail($target)) {
            return $msg->no('mail', 'This is not a mail address.');
        }
        $this->catchall_del($domain_id);
        return $this->create_alias($domain_id, '', $target, 'catchall', true);
    }

    function hook_mail_delete_for_real($mail_id, $address)
    {
        $GLOBALS['db']->query('DELETE FROM dovecot_quota WHERE user = ?', [$address]);
    }

    // What a domain with mail has in the DNS ---------------------------------------------------------------------------------------------

    function hook_dom_add_slave_domain($domain_id, $target_domain)
    {
        $this->catchall_set($domain_id, "@$target_domain");
        return true;
    }

    function hook_dom_add_mx_domain($domain_id)
    {
        global $db, $mem;
        if ($row = $db->row('SELECT domaine, compte FROM domaines WHERE id = ?', [$domain_id])) {
            $this->set_dns_autoconf($row['domaine'], $row['compte']);
            if ($spf = variable_get('default_spf_value')) {
                $this->set_dns_spf($row['domaine'], $spf);
            }
            if ($dmarc = variable_get('default_dmarc_value')) {
                $this->set_dns_dmarc($row['domaine'], $dmarc);
            }
        }
        return $this->create_alias($domain_id, 'postmaster', $mem->user['login'] . '@' . variable_get('mailname_bounce'));
    }

    function hook_dom_del_mx_domain($dom_id)
    {
        global $db;
        foreach ($this->enum_domain_mails($dom_id, '', 0, -1) as $one) {
            $this->delete($one['id']);
        }
        $db->query("UPDATE sub_domaines sd JOIN domaines d ON d.domaine = sd.domaine SET sd.web_action = 'DELETE', d.dns_action = 'UPDATE'"
            . " WHERE d.id = ? AND (sd.type IN ('defmx', 'defmx2') OR sd.sub = 'alternc._domainkey'"
            . " OR (sd.type = 'txt' AND ((sd.sub = '' AND sd.valeur LIKE 'v=spf1 %') OR (sd.sub = '_dmarc' AND sd.valeur LIKE 'v=DMARC1;%')))"
            . " OR (sd.type = 'autodiscover' AND sd.sub IN ('autoconfig', 'autodiscover')))", [$dom_id]);
        return true;
    }

    /** A new default is published for every domain with DNS and mail. */
    function hook_variable_set($name, $old, $new)
    {
        global $db;
        $set = ['default_spf_value' => 'set_dns_spf', 'default_dmarc_value' => 'set_dns_dmarc'][$name] ?? null;
        $rows = $set ? $db->rows('SELECT domaine, compte, login FROM domaines JOIN membres ON uid = compte WHERE gesdns = 1 AND gesmx = 1') : [];
        foreach ($rows as $row) {
            $this->$set($row['domaine'], trim($new), trim((string) $old), $row['compte'], $row['login']);
        }
    }

    function set_dns_autoconf($domain, $uid = -1)
    {
        global $db, $dom, $cuid;
        $changed = false;
        foreach (['autodiscover', 'autoconfig'] as $sub) {
            if (!$db->row("SELECT id FROM sub_domaines WHERE domaine = ? AND sub = ? AND type = 'autodiscover'", [$domain, $sub])) {
                $db->query("INSERT INTO sub_domaines SET domaine = ?, compte = ?, sub = ?, type = 'autodiscover', valeur = ''",
                    [$domain, $uid == -1 ? $cuid : $uid, $sub]);
                $changed = $dom->set_dns_action($domain, 'UPDATE');
            }
        }
        return $changed;
    }

    function set_dns_spf($domain, $spf, $previous = -1, $uid = -1, $login = -1)
    {
        $this->set_txt($domain, '', 'v=spf1 ', $spf, $previous, $uid);
    }

    function set_dns_dmarc($domain, $dmarc, $previous = -1, $uid = -1, $login = -1)
    {
        global $mem, $L_FQDN;
        $login = $login === -1 ? $mem->user['login'] : $login;
        $dmarc = str_replace(['%%ADMINMAIL%%', '%%USERMAIL%%'], ["admin@$L_FQDN", "$login@$L_FQDN"], $dmarc);
        $this->set_txt($domain, '_dmarc', 'v=DMARC1;', $dmarc, $previous, $uid);
    }

    private function set_txt($domain, $sub, $start, $value, $previous, $uid)
    {
        global $db, $dom, $cuid;
        $uid = $uid === -1 ? $cuid : $uid;
        $row = $db->row("SELECT id, valeur FROM sub_domaines WHERE compte = ? AND domaine = ? AND sub = ? AND type = 'txt' AND valeur LIKE ?"
            . " AND web_action != 'DELETE'", [$uid, $domain, $sub, "$start%"]);
        if ($row && $previous !== -1 && $row['valeur'] == $start . $value) {
            return;
        }
        if ($row) {
            $dom->set_web_action($row['id'], 'DELETE');
        }
        $db->query("INSERT INTO sub_domaines SET compte = ?, domaine = ?, sub = ?, type = 'txt', valeur = ?, web_action = 'UPDATE'",
            [$uid, $domain, $sub, $start . $value]);
        $dom->set_dns_action($domain, 'UPDATE');
    }

    // DKIM: the keys are real, nothing signs with them -----------------------------------------------------------------------------------

    function hook_updatedomains_dns_pre()
    {
        foreach ($GLOBALS['db']->rows("SELECT * FROM domaines WHERE dns_action != 'OK'") as $row) {
            $signed = $row['gesdns'] && $row['gesmx'] && $row['dns_action'] != 'DELETE';
            $signed ? $this->dkim_add($row['domaine'], $row['compte']) : $this->dkim_del($row['domaine']);
        }
    }

    function dkim_add($domain, $uid)
    {
        global $db;
        $dir = "/etc/opendkim/keys/$domain";
        if (!file_exists("$dir/alternc.txt")) {
            @mkdir($dir);
            $key = openssl_pkey_new(['private_key_bits' => 2048]);
            openssl_pkey_export_to_file($key, "$dir/alternc.private");
            $public = preg_replace('/-----.*-----|\s/', '', openssl_pkey_get_details($key)['key']);
            file_put_contents("$dir/alternc.txt", "alternc._domainkey IN TXT \"v=DKIM1; h=sha256; k=rsa; s=email; p=$public\"\n");
            chmod("$dir/alternc.private", 0600);
            array_map('add_line_to_file', ['/etc/opendkim/KeyTable', '/etc/opendkim/SigningTable'], $this->dkim_lines($domain));
        }
        if (!$db->row("SELECT id FROM sub_domaines WHERE domaine = ? AND sub = 'alternc._domainkey'", [$domain])) {
            $db->query("INSERT INTO sub_domaines SET domaine = ?, compte = ?, sub = 'alternc._domainkey', type = 'dkim', valeur = ?",
                [$domain, $uid, $this->dkim_get_entry($domain)]);
        }
    }

    function dkim_del($domain)
    {
        $dir = "/etc/opendkim/keys/$domain";
        if (file_exists($dir)) {
            array_map('unlink', glob("$dir/alternc.*"));
            rmdir($dir);
            array_map('del_line_from_file', ['/etc/opendkim/KeyTable', '/etc/opendkim/SigningTable'], $this->dkim_lines($domain));
        }
    }

    function dkim_get_entry($domain)
    {
        return preg_match('/"(.*)"/', file_get_contents("/etc/opendkim/keys/$domain/alternc.txt"), $found) ? $found[1] : false;
    }

    private function dkim_lines($domain)
    {
        return ["alternc._domainkey.$domain $domain:alternc:/etc/opendkim/keys/$domain/alternc.private", "$domain alternc._domainkey.$domain"];
    }

    private function details()
    {
        return 'SELECT a.id, a.address, a.password, a.enabled, a.mail_action, a.type, a.domain_id, d.domaine AS domain, m.path, m.quota,'
            . ' m.quota * 1024 * 1024 AS quotabytes, q.quota_dovecot AS used, m.id IS NOT NULL AS islocal, m.lastlogin,'
            . ' m.mail_action AS mailbox_action, r.recipients FROM address a JOIN domaines d ON d.id = a.domain_id'
            . " LEFT JOIN mailbox m ON m.address_id = a.id LEFT JOIN dovecot_quota q ON q.user = CONCAT(a.address, '@', d.domaine)"
            . ' LEFT JOIN recipient r ON r.address_id = a.id';
    }
}
