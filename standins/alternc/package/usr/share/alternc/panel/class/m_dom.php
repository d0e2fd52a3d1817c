<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_dom
{
    const fic_lock_cron = '/run/alternc/cron.lock';

    var $domains = [];
    var $dns;
    var $tld_no_check_at_all;
    var $type_local = 'VHOST';
    var $type_url = 'URL';
    var $type_ip = 'IP';
    var $type_ipv6 = 'IPV6';
    var $type_cname = 'CNAME';
    var $type_txt = 'TXT';
    var $type_defmx = 'DEFMX';
    var $type_defmx2 = 'DEFMX2';

    function __construct()
    {
        global $L_FQDN, $domislocked;
        $this->tld_no_check_at_all = variable_get('tld_no_check_at_all', 0, '1: members may add any domain');
        variable_get('mailname_bounce', $L_FQDN, 'Name of the mail server, for the addresses of accounts');
        $domislocked = false;
    }

    function hook_quota_get()
    {
        $row = $GLOBALS['db']->row('SELECT COUNT(*) AS used FROM domaines WHERE compte = ?', [$GLOBALS['cuid']]);
        return ['name' => 'dom', 'description' => 'Domain names', 'used' => $row['used'] ?? 0];
    }

    // Types of sub-domains ---------------------------------------------------------------------------------------------------------------

    function domains_type_lst()
    {
        $rows = $GLOBALS['db']->rows('SELECT * FROM domaines_type ORDER BY advanced');
        return array_combine(array_map('strtolower', array_column($rows, 'name')), $rows);
    }

    function domains_type_get($name)
    {
        return $GLOBALS['db']->row('SELECT * FROM domaines_type WHERE name = ?', [$name]);
    }

    function domains_type_target_values($type)
    {
        return $this->domains_type_get($type)['target'] ?? false;
    }

    /** AlternC's deletes nothing (its statement lacks FROM) and says true: so does this one. */
    function domains_type_del($name)
    {
        return true;
    }

    function domains_type_update($name, $description, $target, $entry, $compatibility, $enable, $only_dns, $need_dns, $advanced, $create_tmpdir,
        $create_targetdir, $has_https_option = 0)
    {
        global $db, $msg;
        if (!preg_match('/^[a-z0-9-]+$/', $name)) {
            return $msg->no('dom', 'A type is named with letters, digits and dashes.');
        }
        $db->query('UPDATE domaines_type SET description = ?, target = ?, entry = ?, compatibility = ?, enable = ?, only_dns = ?, need_dns = ?,'
            . ' advanced = ?, create_tmpdir = ?, create_targetdir = ?, has_https_option = ? WHERE name = ?',
            [$description, $target, $entry, $compatibility, $enable, intval($only_dns), intval($need_dns), intval($advanced),
            intval($create_tmpdir), intval($create_targetdir), intval($has_https_option), $name]);
        return true;
    }

    /** Every domain, once a sub-domain of the type exists: AlternC's statement joins on nothing. */
    function domains_type_regenerate($name)
    {
        global $db;
        $db->query("UPDATE sub_domaines SET web_action = 'UPDATE' WHERE type = ?", [$name]);
        $db->query("UPDATE domaines SET dns_action = 'UPDATE' WHERE EXISTS (SELECT 1 FROM sub_domaines WHERE type = ?)", [$name]);
        return true;
    }

    // Domains ----------------------------------------------------------------------------------------------------------------------------

    function enum_domains($uid = -1)
    {
        $uid = $uid == -1 ? $GLOBALS['cuid'] : $uid;
        return $this->domains = array_column($GLOBALS['db']->rows('SELECT domaine FROM domaines WHERE compte = ? ORDER BY domaine', [$uid]), 'domaine');
    }

    function get_domain_byid($dom_id)
    {
        return $this->mine('domaine', 'id', intval($dom_id));
    }

    function get_domain_byname($domain)
    {
        return $this->mine('id', 'domaine', trim($domain));
    }

    function get_domain_all_summary()
    {
        return array_column($GLOBALS['db']->rows('SELECT domaine, gesdns, gesmx, dns_action, zonettl FROM domaines ORDER BY domaine'), null, 'domaine');
    }

    function get_domain_all($dom)
    {
        global $db, $msg, $cuid;
        if (!$this->locked()) {
            return false;
        }
        if (checkfqdn($dom)) {
            return $msg->no('dom', 'This is not the name of a domain.');
        }
        if (!($row = $db->row('SELECT * FROM domaines WHERE compte = ? AND domaine = ?', [$cuid, $dom]))) {
            return $msg->no('dom', 'There is no domain %s.', $dom);
        }
        $subs = $db->rows('SELECT sd.*, dt.description AS type_desc, dt.only_dns, dt.advanced, dt.has_https_option FROM sub_domaines sd'
            . ' LEFT JOIN domaines_type dt ON dt.name = sd.type WHERE compte = ? AND domaine = ? ORDER BY dt.advanced, sd.sub, sd.type', [$cuid, $dom]);
        foreach ($subs as &$sub) {
            $sub += ['name' => $sub['sub'], 'dest' => $sub['valeur'], 'fqdn' => ltrim($sub['sub'] . ".$dom", '.')];
        }
        return ['name' => $dom, 'id' => $row['id'], 'dns' => $row['gesdns'], 'dns_action' => $row['dns_action'], 'dns_result' => $row['dns_result'],
            'mail' => $row['gesmx'], 'zonettl' => $row['zonettl'], 'noerase' => $row['noerase'], 'nsub' => count($subs), 'sub' => $subs];
    }

    function add_domain($domain, $dns, $noerase = false, $force = false, $isslave = false, $slavedom = '')
    {
        global $db, $msg, $quota, $hooks, $cuid, $L_FQDN;
        if (!$this->locked()) {
            return false;
        }
        $domain = strtolower($domain);
        if (checkfqdn($domain)) {
            return $msg->no('dom', 'This is not the name of a domain.');
        }
        if (!$force && $db->row('SELECT domain FROM forbidden_domains WHERE domain = ?', [$domain])) {
            return $msg->no('dom', 'This domain is forbidden here.');
        }
        if ($domain == $L_FQDN || $domain == "www.$L_FQDN") {
            return $msg->no('dom', 'This is the name of the server itself.');
        }
        if ($db->row('SELECT compte FROM domaines WHERE domaine = ?', [$domain])
            || $db->row("SELECT compte FROM sub_domaines WHERE (sub != '' AND CONCAT(sub, '.', domaine) = ?) OR domaine = ?", [$domain, $domain])) {
            return $msg->no('dom', 'This domain is here already.');
        }
        $this->dns = $this->whois($domain);
        if (!$force) {
            $allowed = checkhostallow($domain, $this->dns);
            if ($allowed === -1) {
                return $msg->no('dom', 'Domains of this TLD are not hosted here.');
            }
            if ($dns && ($allowed === -2 || $allowed === -3)) {
                return $msg->no('dom', 'The registry does not know this domain, or names other servers.', '', 'ALERT');
            }
            $mode = $allowed ? $db->row('SELECT mode FROM tld WHERE tld = ?', [$allowed])['mode'] : 0;
            $dns = $dns && $mode != 5 ? 1 : 0;
            if (!$dns && checkhostallow_nodns($domain)) {
                return $msg->no('dom', 'This domain is forbidden here.');
            }
        }
        if (!$quota->cancreate('dom')) {
            return $msg->no('dom', 'You have all the domains that you may have.', '', 'ALERT');
        }
        $gesmx = $dns ? 1 : 0;
        $db->query("INSERT INTO domaines (compte, domaine, gesdns, gesmx, noerase, dns_action) VALUES (?, ?, ?, ?, ?, 'UPDATE')",
            [$cuid, $domain, $dns, $gesmx, $noerase ? 1 : 0]);
        if (!($id = $db->lastid())) {
            return $msg->no('dom', 'The domain could not be written.');
        }
        if ($isslave && !$db->row('SELECT domaine FROM domaines WHERE compte = ? AND domaine = ?', [$cuid, $slavedom])) {
            $msg->raise('ERROR', 'dom', 'There is no domain %s.', $slavedom);
            $isslave = false;
        }
        $this->create_default_subdomains($domain, $isslave ? $slavedom : '');
        $hooks->invoke('alternc_add_domain', [$domain]);
        if ($isslave) {
            $hooks->invoke('alternc_add_slave_domain', [$domain]);
        }
        $hooks->invoke('hook_dom_add_domain', [$id]);
        if ($gesmx) {
            $hooks->invoke('hook_dom_add_mx_domain', [$id]);
        }
        if ($isslave) {
            $hooks->invoke('hook_dom_add_slave_domain', [$id, $slavedom]);
        }
        return true;
    }

    function create_default_subdomains($domain, $target_domain = '')
    {
        $rows = $GLOBALS['db']->rows("SELECT * FROM default_subdomains WHERE concerned IN ('BOTH', ?) AND enabled = 1",
            [$target_domain ? 'SLAVE' : 'MAIN']);
        foreach ($rows as $row) {
            $value = str_ireplace(['%%SUB%%', '%%DOMAIN%%', '%%DOMAINDIR%%', '%%TARGETDOM%%'],
                [$row['sub'], $domain, $this->domdefaultdir($domain), $target_domain], $row['domain_type_parameter']);
            $this->set_sub_domain($domain, $row['sub'], strtolower($row['domain_type']), $value);
        }
    }

    function domdefaultdir($domain)
    {
        return '/www/' . str_replace('-', '', $domain);
    }

    /** The name servers that the parent zone gives; false when nobody answers. */
    function whois($domain)
    {
        for ($parent = $domain; str_contains($parent, '.');) {
            $parent = substr($parent, strpos($parent, '.') + 1);
            $servers = [];
            exec('dig +short NS ' . escapeshellarg($parent), $servers);
            if ($servers) {
                exec('dig +noall +answer +authority NS ' . escapeshellarg($domain) . ' ' . escapeshellarg('@' . trim($servers[0])), $answer);
                preg_match_all('/^' . preg_quote($domain, '/') . '\.\s.*IN\s+NS\s+(\S+?)\.?$/m', implode("\n", $answer), $found);
                return $found[1];
            }
        }
        return false;
    }

    /** Takes the lock itself: a caller that has it waits 15 minutes for itself, with AlternC too. */
    function del_domain($domain)
    {
        global $db, $hooks;
        $domain = strtolower($domain);
        $this->lock();
        if (!($row = $this->get_domain_all($domain))) {
            return false;
        }
        $this->unlock();
        $hooks->invoke('alternc_del_domain', [$domain]);
        $hooks->invoke('alternc_del_mx_domain', [$domain]);
        $hooks->invoke('hook_dom_del_domain', [$row['id']]);
        $hooks->invoke('hook_dom_del_mx_domain', [$row['id']]);
        $db->query("UPDATE sub_domaines SET web_action = 'DELETE' WHERE domaine = ?", [$domain]);
        $this->set_dns_action($domain, 'DELETE');
        return true;
    }

    function del_domain_cancel($dom)
    {
        $GLOBALS['db']->query("UPDATE sub_domaines SET web_action = 'UPDATE' WHERE domaine = ?", [strtolower($dom)]);
        return $this->set_dns_action(strtolower($dom), 'UPDATE');
    }

    function set_ttl($dom_id, $ttl)
    {
        $this->lock();
        $name = $this->get_domain_byid($dom_id);
        $row = $this->get_domain_all($name);
        $done = $this->edit_domain($name, $row['dns'], $row['mail'], false, $ttl);
        $this->unlock();
        return $done;
    }

    function edit_domain($dom, $dns, $gesmx, $force = false, $ttl = 3600)
    {
        global $db, $msg, $hooks;
        if (!$force && !$this->locked()) {
            return false;
        }
        if ($dns == true && !$force) {
            $this->dns = $this->whois($dom);
            $allowed = checkhostallow($dom, $this->dns);
            if ($allowed === -1) {
                return $msg->no('dom', 'Domains of this TLD are not hosted here.');
            }
            if ($allowed === -2 || $allowed === -3) {
                return $msg->no('dom', 'The registry does not know this domain, or names other servers.', '', 'ALERT');
            }
        }
        $ttl = $ttl == 0 ? 3600 : $ttl;
        if (!($row = $this->get_domain_all($dom))) {
            return $msg->no('dom', 'There is no domain %s.', $dom);
        }
        $dns = $dns == '1' ? 1 : 0;
        if ($row['dns'] == $dns && $row['mail'] == $gesmx && $row['zonettl'] == $ttl) {
            $msg->raise('INFO', 'dom', 'Nothing was to be changed.');
            return true;
        }
        if ($gesmx && !$row['mail']) {
            $hooks->invoke('hook_dom_add_mx_domain', [$row['id']]);
        }
        if (!$gesmx && $row['mail']) {
            $hooks->invoke('hook_dom_del_mx_domain', [$row['id']]);
        }
        $db->query('UPDATE domaines SET gesdns = ?, gesmx = ?, zonettl = ? WHERE domaine = ?', [$dns, $gesmx, $ttl, $dom]);
        return $this->set_dns_action($dom, 'UPDATE');
    }

    function set_dns_action($domain, $dns_action)
    {
        $GLOBALS['db']->query('UPDATE domaines SET dns_action = ? WHERE domaine = ?', [$dns_action, $domain]);
        return true;
    }

    function hook_dom_add_mx_domain($dom_id)
    {
        $domain = $this->get_domain_byid($dom_id);
        $this->set_sub_domain($domain, '', $this->type_defmx, '');
        if (!empty($GLOBALS['L_DEFAULT_SECONDARY_MX'])) {
            $this->set_sub_domain($domain, '', $this->type_defmx2, '');
        }
        return true;
    }

    function admin_del_member()
    {
        foreach ($this->enum_domains() as $domain) {
            $this->del_domain($domain);
        }
        return true;
    }

    // Sub-domains ------------------------------------------------------------------------------------------------------------------------

    function get_sub_domain_all($sub_domain_id)
    {
        global $db, $msg, $cuid;
        if (!$this->locked()) {
            return false;
        }
        $row = $db->row('SELECT sd.*, dt.description AS type_desc, dt.only_dns FROM sub_domaines sd JOIN domaines_type dt ON dt.name = sd.type'
            . ' WHERE compte = ? AND sd.id = ?', [$cuid, $sub_domain_id]);
        if (!$row) {
            return $msg->no('dom', 'There is no such sub-domain.');
        }
        return ['id' => $row['id'], 'name' => $row['sub'], 'domain' => $row['domaine'], 'dest' => $row['valeur'], 'enable' => $row['enable'],
            'type' => $row['type'], 'type_desc' => $row['type_desc'], 'only_dns' => $row['only_dns'], 'web_action' => $row['web_action'],
            'https' => $row['https']];
    }

    function clean_https_value($type, $https)
    {
        if (empty($this->domains_type_get($type)['has_https_option'])) {
            return '';
        }
        return in_array(strtolower($https), ['http', 'https']) ? strtolower($https) : 'both';
    }

    function check_type_value($type, $value)
    {
        global $msg;
        $good = match ($this->domains_type_target_values($type)) {
            'NONE' => empty($value) ? true : null,
            'URL' => (bool) filter_var($value, FILTER_VALIDATE_URL),
            'DIRECTORY' => checkuserpath($value) != 0,
            'IP' => (bool) checkip($value),
            'IPV6' => (bool) checkipv6($value),
            'DOMAIN' => checkcname($value),
            'TXT' => true,
            default => false,
        };
        return $good === false ? $msg->no('dom', 'The value %s does not go with the type %s.', [$value, $type]) : (bool) $good;
    }

    function can_create_subdomain($dom, $sub, $type, $sub_domain_id = 0)
    {
        global $db;
        if (!($row = $this->domains_type_get($type))) {
            return false;
        }
        $compatible = explode(',', strtoupper($row['compatibility']));
        $others = $db->rows("SELECT type FROM sub_domaines WHERE sub = ? AND domaine = ? AND id != ? AND web_action != 'DELETE'"
            . " AND enable NOT IN ('DISABLED', 'DISABLE')", [$sub, $dom, intval($sub_domain_id)]);
        foreach ($others as $other) {
            if (!in_array(strtoupper($other['type']), $compatible)) {
                return false;
            }
        }
        return !($type == 'cname' && $sub == '');
    }

    /** A new row; an edit marks the old one DELETE, and the sub-domain has a new id. */
    function set_sub_domain($dom, $sub, $type, $dest, $sub_domain_id = 0, $https = '')
    {
        global $db, $msg, $cuid, $bro;
        if (!$this->locked()) {
            return false;
        }
        $dest = trim($dest);
        $dom = strtolower($dom);
        $sub = strtolower(trim(trim($sub), '.'));
        if ($sub != '' && $sub != '*' && !in_array(checkfqdn($sub), [0, 4])) {
            return $msg->no('dom', 'A sub-domain has only letters, digits and dashes.', '', 'ALERT');
        }
        if (!$this->check_type_value($type, $dest)) {
            return false;
        }
        $https = $this->clean_https_value($type, $https);
        if (checkfqdn($dom)) {
            return $msg->no('dom', 'This is not the name of a domain.');
        }
        if (!$this->can_create_subdomain($dom, $sub, $type, $sub_domain_id)) {
            return $msg->no('dom', 'What is there already does not go with this type.');
        }
        if ($sub_domain_id != 0) {
            $this->del_sub_domain($sub_domain_id);
        }
        $db->query("INSERT INTO sub_domaines (compte, domaine, sub, valeur, type, web_action, https) VALUES (?, ?, ?, ?, ?, 'UPDATE', ?)",
            [$cuid, $dom, $sub, $dest, $type, $https]);
        $root = $bro->get_userid_root($cuid);
        $row = $this->domains_type_get($type);
        $this->make_dir($row['create_tmpdir'], "$root/tmp", 0777);
        $old = umask(0);
        $this->make_dir($row['create_targetdir'], str_replace('//', '/', $root . $dest), 0770);
        umask($old);
        return $this->set_dns_action($dom, 'UPDATE');
    }

    function del_sub_domain($sub_domain_id)
    {
        if (!$this->locked() || !($row = $this->get_sub_domain_all($sub_domain_id))) {
            return false;
        }
        $this->set_web_action($sub_domain_id, 'DELETE');
        return $this->set_dns_action($row['domain'], 'UPDATE');
    }

    function sub_domain_change_status($sub_id, $status)
    {
        global $db, $msg;
        $status = strtoupper($status);
        if (!in_array($status, ['ENABLE', 'DISABLE'])) {
            return false;
        }
        $row = $this->get_sub_domain_all(intval($sub_id));
        if ($status == 'ENABLE' && (!$row || !$this->can_create_subdomain($row['domain'], $row['name'], $row['type'], $sub_id))) {
            return $msg->no('dom', 'What is there already does not go with this type.');
        }
        $db->query('UPDATE sub_domaines SET enable = ? WHERE id = ?', [$status, intval($sub_id)]);
        $this->set_dns_action($row['domain'] ?? '', 'UPDATE');
        return $this->set_web_action($sub_id, 'UPDATE');
    }

    function set_subdomain_ssl_provider($sub_domain_id, $provider)
    {
        global $db, $msg, $cuid, $ssl;
        if (!$this->locked()) {
            return false;
        }
        $row = $db->row('SELECT * FROM sub_domaines WHERE id = ? AND compte = ?', [$sub_domain_id, $cuid]);
        if (!$row) {
            return $msg->no('dom', 'There is no such sub-domain.');
        }
        $provider = strtolower(trim($provider));
        if ($provider && !in_array($provider, array_column($ssl->get_valid_certs(ltrim("{$row['sub']}.{$row['domaine']}", '.')), 'provider'))) {
            return $msg->no('dom', 'This provider has no certificate for the sub-domain.');
        }
        $db->query("UPDATE sub_domaines SET web_action = 'UPDATE', provider = ? WHERE id = ?", [$provider, $sub_domain_id]);
        return true;
    }

    function set_web_action($sub_id, $web_action)
    {
        $GLOBALS['db']->query('UPDATE sub_domaines SET web_action = ? WHERE id = ?', [$web_action, $sub_id]);
        return true;
    }

    // The lock ---------------------------------------------------------------------------------------------------------------------------

    /** Neither atomic nor owned: it waits until the file is gone or 15 minutes old, and whoever ends deletes it. */
    function lock()
    {
        global $msg, $domislocked;
        if ($domislocked) {
            $msg->raise('ERROR', 'dom', 'The lock on domains is ours already.');
        }
        while (file_exists(self::fic_lock_cron) && filemtime(self::fic_lock_cron) > time() - 900) {
            clearstatcache();
            sleep(2);
        }
        @touch(self::fic_lock_cron);
        $domislocked = true;
        register_shutdown_function([$this, 'unlock'], 1);
        return true;
    }

    function unlock($isshutdown = 0)
    {
        global $msg, $domislocked;
        if (!$isshutdown && !$domislocked) {
            $msg->raise('ERROR', 'dom', 'The lock on domains is not ours.');
        }
        @unlink(self::fic_lock_cron);
        $domislocked = false;
        return true;
    }

    // What cron does ---------------------------------------------------------------------------------------------------------------------

    function update_domains()
    {
        global $db, $hooks;
        if (posix_getuid() != 0) {
            echo "Only root may.\n";
            exit();
        }
        $this->lock();
        $db->query("UPDATE sub_domaines sd JOIN domaines d ON sd.domaine = d.domaine AND sd.compte = d.compte"
            . " SET sd.web_action = 'DELETE' WHERE d.dns_action = 'DELETE'");
        if ($domains = $db->rows("SELECT * FROM domaines WHERE dns_action != 'OK'")) {
            $hooks->invoke('hook_updatedomains_dns_pre');
            foreach ($domains as $domain) {
                $delete = $domain['dns_action'] == 'DELETE';
                $answers = $hooks->invoke($delete || $domain['gesdns'] == 0 ? 'hook_updatedomains_dns_del' : 'hook_updatedomains_dns_add', [$domain]);
                if ($delete) {
                    $db->query('DELETE FROM domaines WHERE id = ?', [$domain['id']]);
                } else {
                    $db->query("UPDATE domaines SET dns_result = ?, dns_action = 'OK' WHERE id = ?", [max($answers), $domain['id']]);
                }
            }
            $hooks->invoke('hook_updatedomains_dns_post');
        }
        // A type that is no more drops the row: it stays UPDATE for ever (fault 7).
        $subs = $db->rows("SELECT sd.*, dt.only_dns FROM domaines_type dt JOIN sub_domaines sd ON dt.name = sd.type"
            . " WHERE sd.web_action != 'OK' ORDER BY sd.id");
        $web = [];
        foreach ($subs as $sub) {
            if (!$sub['only_dns']) {
                $web[] = $sub;
            } elseif ($sub['web_action'] == 'DELETE') {
                $db->query('DELETE FROM sub_domaines WHERE id = ?', [$sub['id']]);
            } else {
                $this->set_web_action($sub['id'], 'OK');
            }
        }
        if ($web) {
            $hooks->invoke('hook_updatedomains_web_pre');
            array_map([$this, 'update_one_web'], $web);
            $hooks->invoke('hook_updatedomains_web_post');
        }
        $this->unlock();
    }

    private function update_one_web($sub)
    {
        global $db, $hooks;
        $disabled = str_starts_with($sub['enable'], 'DISABLE');
        if ($sub['web_action'] == 'DELETE' || $disabled) {
            $answers = $hooks->invoke('hook_updatedomains_web_del', [$sub['id']]);
        } else {
            $hooks->invoke('hook_updatedomains_web_before', [$sub['id']]);
            $answers = $hooks->invoke('hook_updatedomains_web_add', [$sub['id']]);
            $hooks->invoke('hook_updatedomains_web_after', [$sub['id']]);
        }
        if ($sub['web_action'] == 'DELETE') {
            $db->query('DELETE FROM sub_domaines WHERE id = ?', [$sub['id']]);
        } else {
            $db->query("UPDATE sub_domaines SET enable = ?, web_result = ?, web_action = 'OK' WHERE id = ?",
                [$disabled ? 'DISABLED' : 'ENABLED', max($answers), $sub['id']]);
        }
    }

    private function locked()
    {
        global $msg, $domislocked;
        return $domislocked ? true : $msg->no('dom', 'The lock on domains is not ours.');
    }

    private function mine($column, $by, $value)
    {
        global $db, $msg, $cuid;
        $row = $db->row("SELECT $column AS found FROM domaines WHERE $by = ? AND compte = ?", [$value, $cuid]);
        return $row ? $row['found'] : $msg->no('dom', 'This domain is not yours.');
    }

    private function make_dir($wanted, $dir, $mode)
    {
        if ($wanted && !is_dir($dir) && !@mkdir($dir, $mode, true)) {
            $GLOBALS['msg']->raise('ERROR', 'dom', 'The directory %s cannot be made.', $dir);
        }
    }
}
