<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_apache
{
    var $shouldreload;
    var $reloadfile = '/run/alternc/apache-reload';
    var $templatedir = '/etc/alternc/templates/apache2';
    var $vhostroot = '/var/lib/alternc/apache-vhost/';

    function hook_updatedomains_web_pre()
    {
        $this->shouldreload = false;
    }

    function hook_updatedomains_web_add($subdomid)
    {
        global $msg, $ssl, $L_FQDN, $L_APACHE_PORT_HTTP, $L_APACHE_PORT_HTTPS;
        $sub = $this->sub($subdomid);
        if ($sub['compte'] < 1999) {
            $msg->raise('ERROR', 'apache', 'Sub-domain %s belongs to %s, which is no member.', [$sub['id'], $sub['compte']]);
            return 1;
        }
        $https = $sub['has_https_option'] && in_array($sub['https'], ['http', 'https', 'both']) ? "-{$sub['https']}" : '';
        $template = "$this->templatedir/" . strtolower($sub['type']) . "$https.conf";
        if (!is_file($template)) {
            $msg->raise('ERROR', 'apache', 'Sub-domain %s needs the template %s, which is not there.', [$sub['id'], $template]);
            return 1;  // and the row is OK all the same (fault 8)
        }
        $cert = $ssl->get_certificate_path($sub['certificate_id']);
        $home = getuserpath($sub['login']);
        $file = $this->file($sub);
        @mkdir(dirname($file), 0755, true);
        file_put_contents($file, strtr(file_get_contents($template), [
            '%%PORT_HTTP%%' => intval($L_APACHE_PORT_HTTP ?? 0) ?: 80,
            '%%PORT_HTTPS%%' => intval($L_APACHE_PORT_HTTPS ?? 0) ?: 443,
            '%%LOGIN%%' => $sub['login'],
            '%%fqdn%%' => $sub['fqdn'],
            '%%document_root%%' => $home . $sub['valeur'],
            '%%account_root%%' => $home,
            '%%redirect%%' => $sub['valeur'],
            '%%UID%%' => $sub['compte'],
            '%%GID%%' => $sub['compte'],
            '%%mail_account%%' => "{$sub['login']}@$L_FQDN",
            '%%user%%' => 'FIXME',
            '%%CRT%%' => $cert['cert'],
            '%%KEY%%' => $cert['key'],
            '%%CHAINLINE%%' => $cert['chain'] ? "SSLCertificateChainFile {$cert['chain']}" : '',
        ]));
        $this->shouldreload = true;
        return 0;
    }

    function hook_updatedomains_web_del($subdomid)
    {
        @unlink($this->file($this->sub($subdomid)));
        $this->shouldreload = true;
        return 0;
    }

    /** The rows are already OK when Apache refuses: its reload file is touched and only the log knows (fault 6). */
    function hook_updatedomains_web_post()
    {
        if (!$this->shouldreload) {
            return;
        }
        $all = $this->vhostroot . 'vhosts_all.conf';
        $out = fopen("$all.new", 'wb');
        foreach (glob($this->vhostroot . '*', GLOB_ONLYDIR) as $dir) {
            $this->concat($out, $dir);
        }
        fclose($out);
        rename("$all.new", $all);
        exec('apache2ctl graceful 2>&1', $said, $status);
        touch($this->reloadfile);
        $GLOBALS['msg']->raise($status ? 'ERROR' : 'INFO', 'apache', 'Apache: ' . ($status ? "$status " . implode(' ', $said) : 'reloaded'));
    }

    private function concat($out, $dir)
    {
        foreach (glob("$dir/*") as $path) {
            is_dir($path) ? $this->concat($out, $path) : fwrite($out, file_get_contents($path) . "\n");
        }
    }

    private function sub($id)
    {
        $sub = $GLOBALS['db']->row("SELECT sd.*, dt.has_https_option, m.login FROM domaines_type dt JOIN sub_domaines sd ON dt.name = sd.type"
            . " LEFT JOIN membres m ON m.uid = sd.compte WHERE sd.id = ? AND sd.web_action != 'OK'", [$id]);
        return ['fqdn' => ltrim("{$sub['sub']}.{$sub['domaine']}", '.')] + $sub;
    }

    private function file($sub)
    {
        return $this->vhostroot . substr($sub['compte'], -1) . "/{$sub['compte']}/{$sub['fqdn']}.conf";
    }
}
