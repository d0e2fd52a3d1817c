<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_ssl
{
    const STATUS_PENDING = 0;
    const STATUS_OK = 1;
    const STATUS_EXPIRED = 99;
    const KEY_REPOSITORY = '/var/lib/alternc/ssl/private';

    var $last_certificate_id;
    var $default_certificate_fqdn;

    function __construct()
    {
        $this->last_certificate_id = variable_get('last_certificate_id', 0, 'The newest certificate that cron_ssl.sh saw');
        $this->default_certificate_fqdn = variable_get('default_certificate_fqdn', $GLOBALS['L_FQDN'], 'Its certificate serves sites without one');
    }

    function get_certificate_path($id)
    {
        global $db, $msg;
        if (!$db->row('SELECT id FROM certificates WHERE id = ?', [intval($id)])) {
            $msg->raise('ERROR', 'ssl', 'There is no certificate %s.', [intval($id)]);
            $id = 0;
        }
        $base = self::KEY_REPOSITORY . '/' . floor($id / 1000) . '/' . intval($id);
        return ['cert' => "$base.pem", 'key' => "$base.key", 'chain' => file_exists("$base.chain") ? "$base.chain" : false];
    }

    /** The certificates that serve a name, the newest first; then the panel's; at the end the snake oil, row 0. */
    function get_valid_certs($fqdn, $provider = '')
    {
        global $db;
        $db->query('UPDATE certificates SET status = 99 WHERE status = 1 AND validend < NOW()');
        $good = $other = $panel = [];
        foreach ($db->rows('SELECT * FROM certificates WHERE status = 1 ORDER BY validstart DESC') as $row) {
            if ($this->serves($row, $fqdn)) {
                $provider == '' || $provider == $row['provider'] ? $good[] = $row : $other[] = $row;
            }
            if (!$panel && $this->serves($row, $this->default_certificate_fqdn)) {
                $panel[] = $row;
            }
        }
        return [...$good, ...$other, ...$panel, ...$db->rows('SELECT * FROM certificates WHERE id = 0')];
    }

    function hook_updatedomains_web_before($subdomid)
    {
        global $db;
        $sub = $db->row('SELECT * FROM sub_domaines WHERE id = ?', [$subdomid]);
        $cert = $this->get_valid_certs(ltrim("{$sub['sub']}.{$sub['domaine']}", '.'), $sub['provider'])[0];
        $this->write_cert_file($cert);
        $db->query('UPDATE sub_domaines SET certificate_id = ? WHERE id = ?', [$cert['id'], $subdomid]);
    }

    function write_cert_file($cert)
    {
        $base = self::KEY_REPOSITORY . '/' . floor($cert['id'] / 1000) . "/{$cert['id']}";
        @mkdir(dirname($base), 0750, true);
        foreach ([self::KEY_REPOSITORY, dirname($base)] as $dir) {
            chgrp($dir, 'ssl-cert');
            chmod($dir, 0750);
        }
        foreach (file_exists("$base.pem") && file_exists("$base.key") ? [] : ['pem' => 'sslcrt', 'key' => 'sslkey', 'chain' => 'sslchain'] as $end => $column) {
            if ($cert[$column] != '') {
                file_put_contents("$base.$end", $cert[$column]);
                chgrp("$base.$end", 'ssl-cert');
                chmod("$base.$end", 0640);
            }
        }
    }

    /** Certificates that are new since the last time: their sub-domains are UPDATE. */
    function cron_new_certs()
    {
        global $db, $dom;
        $last = $db->row('SELECT MAX(id) AS id FROM certificates')['id'] ?? 0;
        if ($last <= $this->last_certificate_id) {
            return;
        }
        $new = $db->rows("SELECT * FROM certificates WHERE id > ? AND sslcrt != ''", [$this->last_certificate_id]);
        $dom->lock();
        foreach ($db->rows('SELECT id, sub, domaine FROM sub_domaines') as $sub) {
            foreach ($new as $cert) {
                if ($this->serves($cert, ltrim("{$sub['sub']}.{$sub['domaine']}", '.'))) {
                    $dom->set_web_action($sub['id'], 'UPDATE');
                }
            }
        }
        $dom->unlock();
        $this->last_certificate_id = $last;
        variable_set('last_certificate_id', $last);
    }

    private function serves($cert, $fqdn)
    {
        $names = [$cert['fqdn'], ...explode("\n", $cert['altnames'])];
        return in_array($fqdn, $names) || in_array('*' . strstr($fqdn, '.'), $names);
    }
}
