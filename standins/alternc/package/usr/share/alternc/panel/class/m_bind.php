<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_bind
{
    var $shouldreload;
    var $shouldreconfig;
    var $zone_file_directory = '/var/lib/alternc/bind/zones';
    private $templates = '/etc/alternc/templates/bind/templates';
    private $lists = [
        'named.template' => '/var/lib/alternc/bind/automatic.simple.conf',
        'named.dnssec.template' => '/var/lib/alternc/bind/automatic.dnssec.conf',
    ];

    function hook_updatedomains_dns_pre()
    {
        $this->shouldreload = $this->shouldreconfig = false;
        $this->rndc('sync -clean');
        $this->rndc('freeze');
    }

    function hook_updatedomains_dns_add($dominfo)
    {
        global $hooks, $L_FQDN, $L_NS1_HOSTNAME, $L_NS2_HOSTNAME, $L_DEFAULT_MX, $L_DEFAULT_SECONDARY_MX, $L_PUBLIC_IP, $L_PUBLIC_IPV6;
        $domain = $dominfo['domaine'];
        $file = "$this->zone_file_directory/$domain";
        [$locked, $serial, $more] = $this->read_zone($domain);
        if ($locked) {
            return 1;
        }
        $tokens = ['@@DOMAINE@@' => $domain, '@@SERIAL@@' => $serial, '@@ZONETTL@@' => $dominfo['zonettl'],
            '@@PUBLIC_IP@@' => $L_PUBLIC_IP, '@@PUBLIC_IPV6@@' => $L_PUBLIC_IPV6 ?? ''];
        $names = ['fqdn' => $L_FQDN, 'ns1' => $L_NS1_HOSTNAME, 'ns2' => $L_NS2_HOSTNAME, 'DEFAULT_MX' => $L_DEFAULT_MX,
            'DEFAULT_SECONDARY_MX' => $L_DEFAULT_SECONDARY_MX];
        foreach ($names as $name => $value) {
            $tokens["%%$name%%"] = $tokens["@@$name@@"] = $value;
        }
        foreach (array_filter($hooks->invoke('hook_bind_dns_tokens', [$domain]), 'is_array') as $others) {
            $tokens += $others;
        }
        $zone = strtr(file_get_contents("$this->templates/zone.template") . $this->conf_from_db($domain), $tokens);
        file_put_contents($file, $zone . ";;; END ALTERNC AUTOGENERATE CONFIGURATION\n" . $more);
        $added = true;
        foreach ($this->lists as $template => $list) {
            $added = $added && add_line_to_file($list, $this->line($template, $domain));
        }
        $this->shouldreconfig = $this->shouldreconfig || $added;
        $this->shouldreload = $this->shouldreload || !$added;
        return 0;
    }

    function hook_updatedomains_dns_del($dominfo)
    {
        $deleted = false;
        foreach ($this->lists as $template => $list) {
            $deleted = del_line_from_file($list, $this->line($template, $dominfo['domaine'])) || $deleted;
        }
        if ($deleted) {
            $this->shouldreconfig = true;
            @unlink("$this->zone_file_directory/{$dominfo['domaine']}");
            $this->rndc('delzone -clean ' . escapeshellarg($dominfo['domaine']));
        }
        return 0;
    }

    function hook_updatedomains_dns_post()
    {
        $this->rndc('thaw');
        if ($this->shouldreload) {
            $this->rndc('reload');
        }
        if ($this->shouldreconfig) {
            $this->rndc('reconfig');
        }
    }

    /** Is it locked, the serial to write, and what stands after the END marker. */
    function read_zone($domain)
    {
        $file = "$this->zone_file_directory/$domain";
        if (!file_exists($file)) {
            return [false, date('Ymd') . '00', ''];
        }
        [$ours, $more] = preg_split('/^.*;\s*END\sALTERNC\sAUTOGENERATE\sCONFIGURATION.*\n?/m', file_get_contents($file), 2) + [1 => ''];
        $serial = preg_match('/(\d{10})\s+;\sserial/', $ours, $found) ? $found[1] : date('Ymd') . '00';
        return [(bool) preg_match('/;\s*LOCKED:YES/i', $ours), $serial + 1, $more];
    }

    function conf_from_db($domain)
    {
        $rows = $GLOBALS['db']->rows("SELECT dt.entry, dt.target, sd.valeur, IF(sd.sub = '', '@', sd.sub) AS sub FROM sub_domaines sd"
            . " JOIN domaines_type dt ON sd.type = dt.name WHERE sd.enable IN ('ENABLE', 'ENABLED') AND sd.web_action != 'DELETE' AND sd.domaine = ?",
            [$domain]);
        $entries = [];
        foreach ($rows as $row) {
            $long = $row['target'] == 'TXT' && strlen($row['valeur']) >= 256;
            $value = $long ? implode('" "', str_split($row['valeur'], 255)) : (string) $row['valeur'];
            $entries[] = strtr($row['entry'], ['%SUB%' => $row['sub'], '%TARGET%' => $value]) . "\n";
        }
        sort($entries, SORT_FLAG_CASE | SORT_STRING);
        return implode('', $entries);
    }

    private function line($template, $domain)
    {
        return trim(strtr(file_get_contents("$this->templates/$template"),
            ['@@DOMAIN@@' => $domain, '@@ZONE_FILE@@' => "$this->zone_file_directory/$domain"]));
    }

    private function rndc($command)
    {
        exec("/usr/sbin/rndc $command 2>&1", $said, $status);
        $GLOBALS['msg']->raise($status ? 'ERROR' : 'INFO', 'bind', "rndc $command: " . ($status ? "$status " . implode(' ', $said) : 'done'));
    }
}
