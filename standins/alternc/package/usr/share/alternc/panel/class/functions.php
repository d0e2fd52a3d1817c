<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
function variable_get($name, $default = null, $createit_comment = null)
{
    global $conf, $db;
    if (!isset($conf)) {
        $conf = array_column($db->rows('SELECT name, value FROM variable'), 'value', 'name');
    }
    if (isset($conf[$name])) {
        return $conf[$name];
    }
    if ($createit_comment !== null) {
        variable_set($name, $default, $createit_comment);
    }
    return $default;
}

function variable_set($name, $value, $comment = null)
{
    global $conf, $db, $hooks;
    variable_get($name);
    $old = $conf[$name] ?? null;
    if (array_key_exists($name, $conf) && $conf[$name] == $value) {
        return;
    }
    $conf[$name] = $value;
    $stored = is_array($value) || is_object($value) ? serialize($value) : $value;
    $db->query('INSERT INTO variable (name, value, comment) VALUES (?, ?, ?)'
        . ' ON DUPLICATE KEY UPDATE value = VALUES(value), comment = COALESCE(VALUES(comment), comment)', [$name, $stored, $comment ?: null]);
    $hooks->invoke('hook_variable_set', ['name' => $name, 'old' => $old, 'new' => $value]);
}

function variable_del($name)
{
    global $conf, $db;
    $db->query('DELETE FROM variable WHERE name = ?', [$name]);
    unset($conf[$name]);
}

/** 0: a name with a dot; 4: one label; 1, 2, 3: too long, a label too long, a forbidden character. */
function checkfqdn($fqdn)
{
    $labels = explode('.', $fqdn);
    if (strlen($fqdn) > 255) {
        return 1;
    }
    foreach ($labels as $label) {
        if (strlen($label) > 63) {
            return 2;
        }
        if (!preg_match('/^[a-z0-9_]([a-z0-9-]*[a-z0-9])?$/i', $label)) {
            return 3;
        }
    }
    return count($labels) > 1 ? 0 : 4;
}

/** The longest row of `tld` that ends this name, or false. */
function tld_of($domain)
{
    global $db;
    $found = false;
    foreach ($db->rows('SELECT tld, mode FROM tld') as $row) {
        if (str_ends_with($domain, '.' . $row['tld']) && strlen($row['tld']) > strlen($found['tld'] ?? '')) {
            $found = $row;
        }
    }
    return $found;
}

function checkhostallow($domain, $dns)
{
    global $dom, $L_NS1, $L_NS2;
    if ($dom->tld_no_check_at_all) {
        return 0;
    }
    $row = tld_of($domain);
    if (!$row || $row['mode'] == 0) {
        return -1;
    }
    if ($row['mode'] != 4 && !is_array($dns)) {
        return -2;
    }
    $named = array_map('strtolower', $dns ?: []);
    $first = in_array(strtolower($L_NS1), $named);
    $second = in_array(strtolower($L_NS2), $named);
    if ($row['mode'] > 2 || ($row['mode'] == 1 && $first) || ($row['mode'] == 2 && $first && $second)) {
        return $row['tld'];
    }
    return -3;
}

function checkhostallow_nodns($domain)
{
    $row = tld_of($domain);
    return !$row || $row['mode'] == 0 || substr_count(substr($domain, 0, -strlen($row['tld'])), '.') > 1 ? 1 : 0;
}

function checkip($ip)
{
    return filter_var($ip, FILTER_VALIDATE_IP, FILTER_FLAG_IPV4);
}

function checkipv6($ip)
{
    return filter_var($ip, FILTER_VALIDATE_IP, FILTER_FLAG_IPV6);
}

function checkcname($cname)
{
    $check = checkfqdn(rtrim($cname, '.'));
    return ($check == 0 || $check == 4) && (str_ends_with($cname, '.') || !str_contains($cname, '.'));
}

/** false when the address is good. */
function checkmail($mail)
{
    return !filter_var($mail, FILTER_VALIDATE_EMAIL);
}

function getuserpath($user = null)
{
    $user ??= $GLOBALS['mem']->user['login'];
    return rtrim(ALTERNC_HTML, '/') . '/' . substr($user, 0, 1) . '/' . $user;
}

/** 1: a directory of the member, or nothing yet; 2: a file; 0: it leads elsewhere. */
function checkuserpath($path)
{
    $real = realpath(getuserpath() . '/' . ltrim($path, '/'));
    if (!$real) {
        return 1;
    }
    return !str_starts_with($real, getuserpath()) ? 0 : (is_dir($real) ? 1 : 2);
}

function get_remote_ip()
{
    return getenv('REMOTE_ADDR');
}

function create_pass($length = 10, $classcount = 3)
{
    $sets = ['abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', '0123456789'];
    if ($classcount >= 4) {
        $sets[] = '(!#$%)*+,-./:;<=>?@[]^_';
    }
    $pass = '';
    for ($i = 0; $i < $length; $i++) {
        $set = $i < count($sets) ? $sets[$i] : implode('', $sets);
        $pass .= $set[random_int(0, strlen($set) - 1)];
    }
    return str_shuffle($pass);
}

function _sha512cr($password)
{
    return crypt($password, '$6$rounds=20000$' . strtr(base64_encode(random_bytes(12)), '+=', './'));
}

function _dovecot_hash($password)
{
    return '{SHA512-CRYPT}' . _sha512cr($password);
}

/** True when the line was not there yet. */
function add_line_to_file($file, $line)
{
    if (in_array($line, array_map('trim', file($file)))) {
        return false;
    }
    file_put_contents($file, trim($line) . "\n", FILE_APPEND);
    return true;
}

/** True when the line was there; the file is replaced in one step, and so belongs to whoever calls. */
function del_line_from_file($file, $line)
{
    $lines = file($file);
    $kept = array_filter($lines, fn($one) => trim($one) != $line);
    file_put_contents("$file.new", implode('', $kept));
    rename("$file.new", $file);
    return count($kept) != count($lines);
}

function panel_islocked()
{
    return file_exists(ALTERNC_LOCK_PANEL);
}

function csrf_get($return = false)
{
    global $db;
    $_SESSION['csrf'] ??= bin2hex(random_bytes(16));
    $token = bin2hex(random_bytes(16));
    $db->query('INSERT INTO csrf (cookie, token, created) VALUES (?, ?, NOW())', [$_SESSION['csrf'], $token]);
    if ($return) {
        return $token;
    }
    echo '<input type="hidden" name="csrf" value="' . $token . '" />';
    return true;
}

/** 1: a form of ours, posted once; 0 or -1 otherwise, with an ERROR. */
function csrf_check($token = null)
{
    global $db, $msg;
    $token ??= $_POST['csrf'] ?? '';
    $row = $db->row('SELECT used FROM csrf WHERE cookie = ? AND token = ?', [$_SESSION['csrf'] ?? '', $token]);
    if (!$row || $row['used']) {
        $msg->raise('ERROR', 'functions', 'This form is not ours or was sent before: load the page again, cookies allowed.');
        return $row ? -1 : 0;
    }
    $db->query('UPDATE csrf SET used = 1 WHERE cookie = ? AND token = ?', [$_SESSION['csrf'], $token]);
    $db->query('DELETE FROM csrf WHERE created < NOW() - INTERVAL 1 DAY');
    return 1;
}
