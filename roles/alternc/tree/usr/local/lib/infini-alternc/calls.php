<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
//
// The calls of door.php: each does one thing through AlternC's classes, as the member whose thing it is. `want` is the thing
// as it shall be, `was` as it is now. Where no class can do a thing there is one SQL statement, prepared, and a comment.

const DOMAINS_LOCK = '/run/alternc/cron.lock';
const PATIENCE = 900;  // seconds: a propagation of 1,400 new rows took three minutes on a busy machine

function row(string $sql, array $values): ?array
{
    global $db;
    $db->query($sql, $values);
    return $db->next_record() ? $db->Record : null;
}

function sql(string $sql, array $values): void
{
    global $db;
    need($db->query($sql, $values));
}

// What AlternC returns, or its own words as the error.
function need($result)
{
    global $msg;
    if ($result === false) {
        $words = trim(strip_tags($msg->msg_str('ERROR') . $msg->msg_str('ALERT')));
        throw new RuntimeException(preg_replace('/\s+/', ' ', $words) ?: 'AlternC refused without saying why');
    }
    return $result;
}

function found(?array $row, string $what): array
{
    if ($row === null) {
        throw new RuntimeException("$what is not on this panel any more");
    }
    return $row;
}

// Act as this member from here on.
function become(int $uid): void
{
    global $mem, $cuid;
    if ((int) $cuid !== $uid) {
        $server = 'SELECT s.id FROM membres m JOIN db_servers s ON s.id = m.db_server_id WHERE m.uid = ?';
        if (row($server, [$uid]) === null) {  // AlternC would end the process
            throw new RuntimeException("member $uid has no database server (membres.db_server_id)");
        }
        $mem->olduid = 0;
        need($mem->su($uid));
        $mem->olduid = 0;
    }
}

function member(string $login): int
{
    $uid = (int) found(row('SELECT uid FROM membres WHERE login = ?', [$login]), "member $login")['uid'];
    become($uid);
    return $uid;
}

// Hold the domains: the propagation of AlternC waits until we are through.
function hold(): void
{
    global $dom, $domislocked;
    for ($end = time() + PATIENCE; !$domislocked && is_file(DOMAINS_LOCK) && time() < $end; clearstatcache()) {
        usleep(200000);
    }
    if (!$domislocked && is_file(DOMAINS_LOCK)) {
        throw new RuntimeException(DOMAINS_LOCK . ' is held since ' . date('H:i:s', filemtime(DOMAINS_LOCK)));
    }
    if (!$domislocked) {
        $dom->lock();
    }
}

function domain(string $name): int
{
    $found = found(row("SELECT id, compte FROM domaines WHERE domaine = ? AND dns_action <> 'DELETE'", [$name]), "domain $name");
    become((int) $found['compte']);
    hold();
    return (int) $found['id'];
}

// AlternC never deletes a domain that has a catch-all: it has to go first.
function drop_catchalls(string $of, $whose): void
{
    global $db, $mail;
    $db->query("SELECT DISTINCT d.id FROM domaines d JOIN address a ON a.domain_id = d.id WHERE a.address = '' AND d.$of = ?", [$whose]);
    for ($ids = []; $db->next_record();) {
        $ids[] = (int) $db->f('id');
    }
    foreach ($ids as $id) {
        need($mail->catchall_del($id));
    }
}

// The password that was given, else one that nobody knows and that no policy of AlternC refuses.
function secret(array $call, string $login): string
{
    $parts = array_filter(array_merge([$login], preg_split('/[@_-]/', $login)), 'strlen');
    $sets = ['abcdefghijkmnopqrstuvwxyz', 'ABCDEFGHJKLMNPQRSTUVWXYZ', '23456789', '!#%+:=?.'];
    do {
        $made = $call['password'] ?? '';
        while (!isset($call['password']) && strlen($made) < 32) {
            $set = str_replace($parts, '', $sets[strlen($made) % 4]);
            $made .= $set[random_int(0, strlen($set) - 1)];
        }
    } while (!isset($call['password']) && str_replace($parts, '', $made) !== $made);
    return $made;
}

function fits(string $password, ?string $hash): bool
{
    $bare = (string) preg_replace('/^\{[A-Z0-9.-]+\}/', '', (string) $hash);
    return $bare !== '' && hash_equals($bare, (string) crypt($password, $bare));
}

function changes(array $call, string ...$fields): bool
{
    foreach ($fields as $field) {
        if (!isset($call['was']) || $call['want'][$field] !== $call['was'][$field]) {
            return true;
        }
    }
    return false;
}

function member_set(int $uid, array $call): void
{
    global $admin;
    $want = $call['want'];
    become($uid);  // a new profile gives its quotas to whom one acts as
    if (changes($call, 'name', 'first_name', 'mail', 'profile', 'notes', 'duration') || isset($call['password'])) {
        $now = row('SELECT enabled, canpass FROM membres WHERE uid = ?', [$uid]);
        need($admin->update_mem($uid, $want['mail'], $want['name'], $want['first_name'], $call['password'] ?? '',
            $now['enabled'], $now['canpass'], $want['profile'], $want['duration'], $want['notes']));
    }
    $now = row('SELECT enabled, su FROM membres WHERE uid = ?', [$uid]);
    if ((bool) $now['enabled'] !== $want['enabled']) {
        need($want['enabled'] ? $admin->unlock_mem($uid) : $admin->lock_mem($uid));
    }
    if ((bool) $now['su'] !== $want['admin']) {
        need($want['admin'] ? $admin->normal2su($uid) : $admin->su2normal($uid));
    }
    if (isset($call['hash'])) {  // AlternC takes no hash
        sql('UPDATE membres SET pass = ? WHERE uid = ?', [$call['hash'], $uid]);
    }
}

function subdomain_id(array $was): int
{
    domain($was['domain']);
    $row = row("SELECT id FROM sub_domaines WHERE domaine = ? AND sub = ? AND LOWER(type) = ? AND COALESCE(valeur, '') = ?"
        . " AND web_action <> 'DELETE' ORDER BY enable LIKE 'ENABLE%' = ? DESC, id DESC LIMIT 1",
        [$was['domain'], $was['sub'], $was['type'], $was['value'], (int) $was['enabled']]);
    return (int) found($row, "sub-domain {$was['sub']}.{$was['domain']} ({$was['type']})")['id'];
}

function subdomain_set(array $want, int $id): void
{
    global $dom;
    need($dom->set_sub_domain($want['domain'], $want['sub'], $want['type'], $want['value'], $id, $want['https']));
    if (!$want['enabled']) {
        need($dom->sub_domain_change_status(subdomain_id(['enabled' => true] + $want), 'DISABLE'));
    }
}

function mailbox_id(string $address): int
{
    $at = strrpos($address, '@');
    $id = domain(substr($address, $at + 1));
    $row = row('SELECT id FROM address WHERE domain_id = ? AND address = ?', [$id, substr($address, 0, $at)]);
    return (int) found($row, "mail address $address")['id'];
}

function mailbox_set(int $id, array $call): void
{
    global $mail;
    $want = $call['want'];
    if (changes($call, 'mailbox', 'quota_mb', 'forwards')) {
        need($mail->set_details($id, (int) $want['mailbox'], $want['quota_mb'], implode("\n", $want['forwards']), 'dovecot', true));
    }
    if (isset($call['password'])) {
        need($mail->set_passwd($id, $call['password']));
    }
    if (isset($call['hash'])) {  // AlternC takes no hash
        sql('UPDATE address SET password = ? WHERE id = ?', [$call['hash'], $id]);
    }
    if (changes($call, 'enabled')) {
        need($want['enabled'] ? $mail->enable($id) : $mail->disable($id));
    }
}

function database_user_set(array $call): void
{
    global $mysql;
    ['want' => $want, 'was' => $was] = $call + ['was' => null];
    member($want['member']);
    if (isset($call['password'])) {
        need($mysql->change_user_password($want['name'], $call['password'], $call['password']));
    }
    $had = $was['databases'] ?? [];
    foreach (array_diff($want['databases'], $had) as $name) {
        need($mysql->set_user_rights($want['name'], $name, $mysql->available_sql_rights()));
    }
    foreach (array_diff($had, $want['databases']) as $name) {
        need($mysql->set_user_rights($want['name'], $name, []));
    }
}

// A name of AlternC's FTP accounts in its two parts: a login or domain of the member, and what follows.
function ftp_name(string $name): array
{
    global $ftp;
    foreach ($ftp->prefix_list() as $prefix) {
        if ($name === $prefix || strpos($name, $prefix . '_') === 0) {
            return [$prefix, (string) substr($name, strlen($prefix) + 1)];
        }
    }
    throw new RuntimeException("FTP account $name begins neither with its member's login nor with a domain of that member");
}

function ftp_rest(array $call, bool $enabled): void
{
    global $ftp;
    $id = (int) found(row('SELECT id FROM ftpusers WHERE name = ?', [$call['want']['name']]), "FTP account {$call['want']['name']}")['id'];
    if (isset($call['hash'])) {  // AlternC takes no hash
        sql("UPDATE ftpusers SET password = '', encrypted_password = ? WHERE id = ?", [$call['hash'], $id]);
    }
    if ($call['want']['enabled'] !== $enabled) {
        need($ftp->switch_enabled($id));
    }
}

function type_row(array $want): array
{
    return [$want['description'], $want['target'], $want['entry'], implode(',', $want['compatibility']), $want['enable'],
        (int) $want['only_dns'], (int) $want['need_dns'], (int) $want['advanced'], (int) $want['create_tmpdir'],
        (int) $want['create_targetdir'], (int) $want['has_https_option']];
}

function variable_call(array $call): void
{
    become(ADMIN);
    variable_set($call['want']['name'], $call['want']['value']);
}

function quota_call(array $call): void
{
    global $quota;
    $want = $call['want'];
    if ($want['member'] === null) {  // AlternC leaves out the names that none of its classes counts
        sql('REPLACE INTO defquotas (quota, value, type) VALUES (?, ?, ?)', [$want['quota'], $want['value'], $want['profile']]);
    } else {
        member($want['member']);
        need($quota->setquota($want['quota'], $want['value']));
    }
}

return [
    'member.create' => function (array $call): void {
        global $admin, $mem;
        become(ADMIN);
        $want = $call['want'];
        $server = row('SELECT db_server_id FROM membres WHERE uid = ?', [ADMIN])['db_server_id'];
        $uid = need($admin->add_mem($want['login'], secret($call, $want['login']), $want['name'], $want['first_name'], $want['mail'], 1,
            $want['profile'], $want['duration'], $want['notes'], 1, '', $server));
        unset($call['password']);
        member_set((int) $uid, ['was' => ['enabled' => true, 'admin' => false] + $want] + $call);
    },
    'member.change' => function (array $call): void {
        member_set(member($call['was']['login']), $call);
    },
    'member.remove' => function (array $call): void {
        global $admin, $dom, $domislocked;
        $uid = member($call['was']['login']);
        drop_catchalls('compte', $uid);
        become(ADMIN);
        if ($domislocked) {  // it takes the lock itself, for each domain
            $dom->unlock();
        }
        need($admin->del_mem($uid));
    },
    'domain.create' => function (array $call): void {
        global $dom;
        $want = $call['want'];
        member($want['member']);
        hold();
        need($dom->add_domain($want['name'], (int) $want['dns'], $want['keep'], true));
        need($dom->edit_domain($want['name'], (string) (int) $want['dns'], (int) $want['mail'], true, $want['ttl']));
    },
    'domain.change' => function (array $call): void {
        global $dom;
        $want = $call['want'];
        $id = domain($want['name']);
        if (changes($call, 'keep')) {  // AlternC sets it at creation only
            sql('UPDATE domaines SET noerase = ? WHERE id = ?', [(int) $want['keep'], $id]);
        }
        need($dom->edit_domain($want['name'], (string) (int) $want['dns'], (int) $want['mail'], true, $want['ttl']));
    },
    'domain.remove' => function (array $call): void {
        global $dom;
        drop_catchalls('id', domain($call['was']['name']));
        $dom->unlock();  // it takes the lock itself
        need($dom->del_domain($call['was']['name']));
    },
    'subdomain.create' => function (array $call): void {
        domain($call['want']['domain']);
        subdomain_set($call['want'], 0);
    },
    'subdomain.change' => function (array $call): void {
        global $dom;
        $id = subdomain_id($call['was']);
        if (changes($call, 'type', 'value', 'https')) {
            subdomain_set($call['want'], $id);
        } else {
            need($dom->sub_domain_change_status($id, $call['want']['enabled'] ? 'ENABLE' : 'DISABLE'));
        }
    },
    'subdomain.remove' => function (array $call): void {
        global $dom;
        $id = subdomain_id($call['was']);
        if (row('SELECT name FROM domaines_type WHERE name = ?', [$call['was']['type']]) !== null) {
            need($dom->del_sub_domain($id));
        } else {  // AlternC cannot find a row whose type is gone
            sql("UPDATE sub_domaines SET web_action = 'DELETE' WHERE id = ?", [$id]);
        }
    },
    'mailbox.create' => function (array $call): void {
        global $mail, $dom;
        $want = $call['want'];
        $at = strrpos($want['address'], '@');
        $id = domain(substr($want['address'], $at + 1));
        $local = substr($want['address'], 0, $at);
        if ($local === '') {
            need($mail->catchall_set($id, $want['forwards'][0]));
            $call['was'] = ['enabled' => true] + $want;
        } elseif (row("SELECT id FROM address WHERE domain_id = ? AND address = ? AND mail_action = 'DELETE'", [$id, $local])) {
            need($mail->undelete(mailbox_id($want['address'])));  // its mails are still there
        } else {
            need($mail->create($id, $local, '', true));
        }
        mailbox_set(mailbox_id($want['address']), $call);
    },
    'mailbox.change' => function (array $call): void {
        global $mail;
        if ($call['want']['address'][0] === '@' && changes($call, 'forwards')) {
            need($mail->catchall_set(domain(substr($call['want']['address'], 1)), $call['want']['forwards'][0]));
            $call['was'] = ['enabled' => true] + $call['want'];
        }
        mailbox_set(mailbox_id($call['want']['address']), $call);
    },
    'mailbox.remove' => function (array $call): void {
        global $mail;
        need($mail->delete(mailbox_id($call['was']['address'])));
    },
    'database.create' => function (array $call): void {
        global $mysql;
        member($call['want']['member']);
        need($mysql->add_db($call['want']['name']));
    },
    'database.remove' => function (array $call): void {
        global $mysql;
        member($call['was']['member']);
        need($mysql->del_db($call['was']['name']));
    },
    'database_user.create' => function (array $call): void {
        global $mysql;
        $want = $call['want'];
        member($want['member']);
        if (row('SELECT name FROM dbusers WHERE name = ?', [$want['name']]) === null) {
            $password = secret($call, $want['name']);
            $suffix = $want['name'] === $want['member'] ? $want['name'] : substr($want['name'], strlen($want['member']) + 1);
            need($mysql->add_user($suffix, $password, $password));
            unset($call['password']);
        }  // else AlternC has just made it with the database of that name
        database_user_set($call);
    },
    'database_user.change' => function (array $call): void {
        database_user_set($call);
    },
    'database_user.remove' => function (array $call): void {
        global $mysql;
        member($call['was']['member']);
        if (row('SELECT name FROM dbusers WHERE name = ?', [$call['was']['name']]) !== null) {  // else it went with its database
            need($mysql->del_user($call['was']['name']));
        }
    },
    'ftp.create' => function (array $call): void {
        global $ftp;
        member($call['want']['member']);
        [$prefix, $suffix] = ftp_name($call['want']['name']);
        need($ftp->add_ftp($prefix, $suffix, secret($call, $call['want']['name']), $call['want']['directory']));
        ftp_rest($call, true);
    },
    'ftp.change' => function (array $call): void {
        global $ftp;
        $want = $call['want'];
        member($want['member']);
        if (changes($call, 'directory') || isset($call['password'])) {
            $id = (int) found(row('SELECT id FROM ftpusers WHERE name = ?', [$want['name']]), "FTP account {$want['name']}")['id'];
            [$prefix, $suffix] = ftp_name($want['name']);
            need($ftp->put_ftp_details($id, $prefix, $suffix, $call['password'] ?? '', $want['directory']));
        }
        ftp_rest($call, $call['was']['enabled']);
    },
    'ftp.remove' => function (array $call): void {
        global $ftp;
        member($call['was']['member']);
        $id = found(row('SELECT id FROM ftpusers WHERE name = ?', [$call['was']['name']]), "FTP account {$call['was']['name']}")['id'];
        need($ftp->delete_ftp($id));
    },
    'domain_type.create' => function (array $call): void {  // AlternC can only change the types that it has
        sql('INSERT INTO domaines_type (description, target, entry, compatibility, enable, only_dns, need_dns, advanced, create_tmpdir,'
            . ' create_targetdir, has_https_option, name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
            [...type_row($call['want']), $call['want']['name']]);
    },
    'domain_type.change' => function (array $call): void {
        global $dom;
        need($dom->domains_type_update($call['want']['name'], ...type_row($call['want'])));
        if (changes($call, 'entry', 'only_dns', 'has_https_option')) {  // AlternC's own way marks every domain of the panel
            sql("UPDATE sub_domaines s JOIN domaines d ON d.domaine = s.domaine SET s.web_action = IF(s.web_action = 'OK', 'UPDATE', s.web_action),"
                . " d.dns_action = IF(d.dns_action = 'OK', 'UPDATE', d.dns_action) WHERE LOWER(s.type) = ?", [$call['want']['name']]);
        }
    },
    'domain_type.remove' => function (array $call): void {  // AlternC's own statement is not valid SQL
        sql('DELETE FROM domaines_type WHERE name = ?', [$call['was']['name']]);
    },
    'variable.create' => 'variable_call',
    'variable.change' => 'variable_call',
    'quota.create' => 'quota_call',
    'quota.change' => 'quota_call',
    'verify' => function (array $call): array {  // which of these passwords are the current ones
        $hash = [
            'members' => 'SELECT pass AS hash FROM membres WHERE login = ?',
            'mailboxes' => "SELECT a.password AS hash FROM address a JOIN domaines d ON d.id = a.domain_id WHERE CONCAT(a.address, '@', d.domaine) = ?",
            'ftp_accounts' => 'SELECT encrypted_password AS hash FROM ftpusers WHERE name = ?',
            'database_users' => 'SELECT password AS hash FROM dbusers WHERE name = ?',
        ][$call['kind']];
        return ['fits' => array_map(function (array $one) use ($call, $hash): bool {
            $now = row($hash, [$one['key']])['hash'] ?? '';
            return $call['kind'] === 'database_users' ? hash_equals((string) $now, $one['password']) : fits($one['password'], $now);
        }, $call['of'])];
    },
];
