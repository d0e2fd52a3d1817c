#!/usr/bin/php
<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Does what is queued in `actions`, one after the other, below the members' files and mail only.
require_once '/usr/share/alternc/panel/class/config_nochk.php';
const LOCK = '/run/alternc/do_actions_cron.lock';
$admin->stop_if_jobs_locked();

/** The real path, or false outside of what members own. */
function below($path)
{
    $real = realpath($path);
    foreach ([ALTERNC_HTML, ALTERNC_MAIL] as $root) {
        if ($real && str_starts_with($real, realpath($root) . '/')) {
            return $real;
        }
    }
    return false;
}

/** A path that need not be there yet: its directory must. */
function beside($path)
{
    $dir = below(dirname($path));
    return $dir ? $dir . '/' . basename($path) : false;
}

function run(...$command)
{
    exec(implode(' ', array_map('escapeshellarg', $command)) . ' 2>&1', $said, $status);
    return $status;
}

/** 0, or what the shell or we say is wrong. */
function act($type, $user, $with)
{
    $fix = '/usr/lib/alternc/fixperms.sh';
    $path = match ($type) {
        'FIX_USER' => true,
        'CREATE_FILE' => beside($with['file']),
        'CREATE_DIR' => beside($with['dir']),
        'MOVE' => beside($with['dst']) && below($with['src']) ? beside($with['dst']) : false,
        default => below($with['dir'] ?? $with['file'] ?? $with['filename']),
    };
    if ($path === false) {
        return -1;
    }
    return match ($type) {
        'FIX_USER' => run($fix, '-u', $with['uid']),
        'FIX_DIR' => run($fix, '-d', $path),
        'FIX_FILE' => run($fix, '-f', $path),
        'CREATE_DIR' => run('mkdir', '-p', $path),
        'DELETE' => run('rm', '-rf', $path),
        'MOVE' => is_dir($path) ? 0 : (mkdir($path, 0777, true) && chown($path, $user) ? run('mv', '-f', below($with['src']), $path) : -1),
        'CHMOD' => is_int($with['perms']) && chmod($path, $with['perms']) ? 0 : -1,
        'CREATE_FILE' => !file_exists($path) && file_put_contents($path, $with['content']) !== false && chown($path, $user) ? 0 : -1,
    };
}

$errors = [];
if (file_exists(LOCK)) {
    $pid = intval(file_get_contents(LOCK));
    if ($pid != getmypid() && str_contains((string) @file_get_contents("/proc/$pid/cmdline"), 'do_actions.php')) {
        exit(0);
    }
    $errors[] = 'The last run did not end: its lock was still there.';
    while ($jobs = $action->get_job()) {
        $resumable = in_array($jobs[0]['type'], ['CREATE_FILE', 'CREATE_DIR', 'DELETE', 'FIX_DIR', 'FIX_FILE']);
        $resumable ? $action->reset_job($jobs[0]['id']) : $action->finish($jobs[0]['id'], -1);
    }
}
file_put_contents(LOCK, getmypid());
while ($found = $action->get_action()) {
    $row = $found[0];
    $action->begin($row['id']);
    $status = act($row['type'], $row['user'], unserialize($row['parameters']));
    if ($status != 0) {
        $errors[] = "Action {$row['id']} ({$row['type']}) ended with $status.";
    }
    $action->finish($row['id'], $status);
}
if ($errors) {
    @mail("alterncpanel@$L_FQDN", 'do_actions.php: something went wrong', implode("\n", $errors));
    echo implode("\n", $errors), "\n";
}
unlink(LOCK);
