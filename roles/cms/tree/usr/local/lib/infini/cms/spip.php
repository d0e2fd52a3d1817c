<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later

// Installs one SPIP without a browser: the very pages of its installer, one after the other, then one article
// through SPIP's own editing API. The module cms_sites runs it as the site's account; the settings come as JSON
// on standard input. Each page wants a fresh PHP, so the script calls itself with the name of the page.

// From PHP 8 on, what is disabled is unknown: a call would end the page. Before, it only does nothing.
if (PHP_VERSION_ID >= 80000 && !function_exists('sleep')) {
    function sleep(int $seconds): int
    {
        return 0;
    }
}

/** Have one page played by a fresh PHP; what it prints counts only when it fails. */
function play(string $page, array $settings): string
{
    $quiet = ['-d', 'display_errors=stderr', '-d', 'log_errors=0', '-d', 'error_reporting=' . error_reporting()];
    // Without a network, SPIP waits a second each time that it tries to see its own pages.
    $command = array_merge([PHP_BINARY], $quiet, ['-d', 'disable_functions=sleep', __FILE__, $page]);
    $process = proc_open($command, [['pipe', 'r'], ['pipe', 'w'], STDERR], $pipes);
    fwrite($pipes[0], json_encode($settings));
    fclose($pipes[0]);
    $printed = stream_get_contents($pipes[1]);
    if (proc_close($process) !== 0) {
        fwrite(STDERR, "the page $page of SPIP's installer failed: " . trim(strip_tags($printed)) . "\n");
        exit(1);
    }
    return $printed;
}

/** The request that a visitor's browser would make of this page, come through the proxy that ends TLS. */
function pretend_request(string $site, string $root, string $script, array $form): void
{
    $_SERVER['HTTP_HOST'] = $_SERVER['SERVER_NAME'] = $site;
    $_SERVER['HTTPS'] = 'on';
    $_SERVER['SERVER_PORT'] = '443';
    $_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
    $_SERVER['SERVER_SOFTWARE'] = 'Apache';
    $_SERVER['HTTP_ACCEPT_LANGUAGE'] = 'fr';
    $_SERVER['REMOTE_ADDR'] = '127.0.0.1';
    $_SERVER['REQUEST_METHOD'] = 'POST';
    $_SERVER['DOCUMENT_ROOT'] = $root;
    $_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = $script;
    $_SERVER['REQUEST_URI'] = dirname($script) === '/' ? '/' : dirname($script) . '/';
    $_SERVER['SCRIPT_FILENAME'] = $root . $script;
    $_SERVER['QUERY_STRING'] = '';
    $_POST = $_REQUEST = $form;
    chdir(dirname($root . $script));
}

/** What one fills in on each page of the installer. */
function form(string $step, array $settings): array
{
    $database = ['server_db' => 'mysql', 'adresse_db' => 'localhost', 'login_db' => $settings['account'], 'pass_db' => ''];
    $person = [
        'nom' => 'Webmestre',
        'email' => 'webmestre@' . $settings['site'],
        'login' => 'webmestre',
        'pass' => $settings['password'],
        'pass_verif' => $settings['password'],
    ];
    $forms = [
        '3' => $database + ['choix_db' => $settings['database'], 'tprefix' => 'spip'],
        '3b' => $database + $person,
    ];
    return ['exec' => 'install', 'etape' => $step] + ($forms[$step] ?? []);
}

/** What the installer does not see to by itself. */
function prepare_database(array $settings, bool $old): void
{
    mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
    $link = mysqli_connect('localhost', $settings['account'], '', $settings['database']);
    if ($old) {
        // Its MyISAM tables have keys on VARCHAR(255): at four bytes a letter they are over MyISAM's 1000 bytes.
        mysqli_query($link, 'ALTER DATABASE CHARACTER SET utf8 COLLATE utf8_general_ci');
    }
    // An installer cut short leaves a list of settings without a version, and would take it for a finished one.
    if (mysqli_num_rows(mysqli_query($link, "SHOW TABLES LIKE 'spip_meta'"))) {
        $version = mysqli_query($link, "SELECT valeur FROM spip_meta WHERE nom = 'version_installee'");
        if (!mysqli_num_rows($version)) {
            mysqli_query($link, 'DROP TABLE spip_meta');
        }
    }
}

// Everything of the site belongs to one account, and Apache and PHP both serve it as this account.
umask(027);
define('_SPIP_CHMOD', 0750);

$settings = json_decode(stream_get_contents(STDIN), true, 4, JSON_THROW_ON_ERROR);
$root = $settings['root'];
$page = $argv[1] ?? '';

if ($page === '') {
    if (!file_exists("$root/config/connect.php")) {
        prepare_database($settings, !file_exists("$root/vendor/autoload.php"));
        foreach (['3', '3b', '4', 'fin'] as $step) {
            play($step, $settings);
        }
    }
    if (!file_exists("$root/config/connect.php")) {
        fwrite(STDERR, "SPIP's installer ended without writing config/connect.php\n");
        exit(1);
    }
    echo play('article', $settings);
    exit(0);
}

if ($page !== 'article') {
    pretend_request($settings['site'], $root, '/ecrire/index.php', form($page, $settings));
    require "$root/ecrire/index.php";
    exit(0);
}

pretend_request($settings['site'], $root, '/spip.php', []);
if (file_exists("$root/vendor/autoload.php")) {
    require_once "$root/vendor/autoload.php";
}
require_once "$root/ecrire/inc_version.php";
include_spip('base/abstract_sql');
include_spip('inc/acces');
include_spip('inc/autoriser');
include_spip('inc/config');
include_spip('inc/meta');
include_spip('action/editer_rubrique');
include_spip('action/editer_article');

$GLOBALS['visiteur_session'] = sql_fetsel('*', 'spip_auteurs', "login='webmestre'");
ecrire_meta('nom_site', $settings['title']);

// What the installer's last page does only when it can see the site being served.
foreach ([_DIR_TMP, _DIR_CONNECT] as $private) {
    verifier_htaccess($private, true);
}

// The first article, whatever its title: it stands at /spip.php?article1.
$article = sql_getfetsel('id_article', 'spip_articles', 'id_article=1');
if (!$article) {
    $section = rubrique_inserer(0);
    rubrique_modifier($section, ['titre' => 'Nouvelles']);
    $article = article_inserer($section);
}
// Plugins forget who is logged in when there is no cookie; what we are about to do is allowed all the same.
autoriser_exception('publierdans', 'rubrique', sql_getfetsel('id_rubrique', 'spip_articles', 'id_article=1'));
autoriser_exception('modifier', 'article', $article);
$refused = article_modifier($article, [
    'titre' => $settings['article'],
    'texte' => $settings['text'],
    'date' => date('Y-m-d H:i:s'),
    'statut' => 'publie',
]);
if ($refused) {
    fwrite(STDERR, "SPIP refused the article: $refused\n");
    exit(1);
}
echo json_encode(['version' => $GLOBALS['spip_version_affichee']]), "\n";
