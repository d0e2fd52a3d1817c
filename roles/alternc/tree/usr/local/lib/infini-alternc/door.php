<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
//
// The door to AlternC's own classes: {"calls": [{"do": "member.create", "want": {…}, "was": {…}}, …]} on standard input,
// {"done": [{"ok": true} | {"ok": false, "error": "…"}, …]} on standard output, one answer a call, in order. A call that
// fails is said and the next ones go on. Exit code: 0 all went well, 1 some failed, 2 nothing was tried.
// Passwords come in on standard input and never go out. The calls themselves are in calls.php.

const PANEL = '/usr/share/alternc/panel/class/config_nochk.php';
const ADMIN = 2000;

$infini = ['done' => [], 'sql' => '', 'over' => false];
ini_set('display_errors', '0');
ini_set('log_errors', '0');
ini_set('session.use_cookies', '0');
ob_start();

function answer(array $answer, int $code): void
{
    $GLOBALS['infini']['over'] = true;
    while (ob_get_level()) {
        ob_end_clean();
    }
    echo json_encode($answer, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    exit($code);
}

// AlternC ends the process itself where it meets what it did not expect: what was done until then is still said.
register_shutdown_function(function (): void {
    global $infini;
    if (!$infini['over']) {
        $why = error_get_last()['message'] ?? trim(strip_tags((string) ob_get_contents()));
        $why = strtok($why ?: 'it ended the process without a word', "\n");
        answer(['done' => $infini['done'], 'fatal' => $why], $infini['done'] ? 1 : 2);
    }
});
// Its SQL errors are warnings that most callers never look at; here they make the call fail. The rest is old style.
set_error_handler(function (int $level, string $text): bool {
    if (strpos($text, 'SQLSTATE') !== false && strpos($text, 'no such grant') === false) {
        $GLOBALS['infini']['sql'] = $text;
    }
    return true;
});

if (posix_geteuid() === 0) {
    answer(['done' => [], 'fatal' => 'the door is not for root: run it as alterncpanel'], 2);
}
$infini['calls'] = json_decode((string) stream_get_contents(STDIN), true)['calls'] ?? null;
if (!is_array($infini['calls'])) {
    answer(['done' => [], 'fatal' => 'standard input is not {"calls": [...]}'], 2);
}
if (!is_readable(PANEL)) {
    answer(['done' => [], 'fatal' => 'AlternC is not installed: ' . PANEL . ' cannot be read'], 2);
}
// With force=1 AlternC still asks the DNS about a new domain and then does not look at the answer; `dig` beside this
// file answers nothing at once, so that a host without outside DNS does not wait for minutes.
putenv('PATH=' . __DIR__ . '/silent:' . getenv('PATH'));
require PANEL;
if (!$db->is_connected()) {
    answer(['done' => [], 'fatal' => 'the panel database does not answer'], 2);
}
$admin->enabled = 1;

$infini['doors'] = require __DIR__ . '/calls.php';
foreach ($infini['calls'] as $infini['call']) {
    if (!isset($infini['doors'][$infini['call']['do'] ?? ''])) {
        answer(['done' => [], 'fatal' => 'no call is named ' . json_encode($infini['call']['do'] ?? null)], 2);
    }
}
become(ADMIN);
foreach ($infini['calls'] as $infini['call']) {
    $msg->init_msgs();
    $infini['sql'] = '';
    $get_quota_cache = null;  // AlternC keeps what it counted for the whole process
    try {
        $infini['more'] = $infini['doors'][$infini['call']['do']]($infini['call']) ?? [];
        $infini['done'][] = $infini['sql'] === '' ? ['ok' => true] + $infini['more'] : ['ok' => false, 'error' => $infini['sql']];
    } catch (Throwable $error) {
        $infini['done'][] = ['ok' => false, 'error' => $infini['sql'] ?: $error->getMessage()];
    }
}
if ($domislocked) {
    $dom->unlock();
}
@session_destroy();
answer(['done' => $infini['done']], in_array(false, array_column($infini['done'], 'ok'), true) ? 1 : 0);
