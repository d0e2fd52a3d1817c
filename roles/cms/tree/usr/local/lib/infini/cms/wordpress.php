<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later

// Installs one WordPress without a browser, by its own wp_install(), and publishes or corrects one article.
// The module cms_sites runs it as the site's account; the settings come as JSON on standard input.

$settings = json_decode(stream_get_contents(STDIN), true, 4, JSON_THROW_ON_ERROR);
$root = $settings['root'];
chdir($root);

// Everything of the site belongs to one account, and Apache and PHP both serve it as this account.
umask(027);

// The installer asks the request where it lives; a visitor would come through the proxy that ends TLS.
$_SERVER['HTTP_HOST'] = $_SERVER['SERVER_NAME'] = $settings['site'];
$_SERVER['HTTPS'] = 'on';
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

/** Write wp-config.php the way wp-admin/setup-config.php does: the sample, with this site's values and fresh keys. */
function write_configuration(string $file, array $settings): void
{
    $values = [
        'DB_NAME' => $settings['database'],
        'DB_USER' => $settings['account'],
        'DB_PASSWORD' => '',
        'DB_HOST' => 'localhost:' . $settings['socket'],
        'DB_CHARSET' => 'utf8mb4',
    ];
    $text = preg_replace_callback(
        "/^define\(\s*'([A-Z_]+)',(\s*)'([^']*)'\s*\);/m",
        function (array $line) use ($values): string {
            $fresh = $line[3] === 'put your unique phrase here' ? bin2hex(random_bytes(32)) : $line[3];
            return sprintf("define( '%s',%s%s );", $line[1], $line[2], var_export($values[$line[1]] ?? $fresh, true));
        },
        str_replace("\r\n", "\n", file_get_contents('wp-config-sample.php'))
    );
    // The staging copy calls nobody and stays at the version that the inventory names.
    $calm = "define( 'AUTOMATIC_UPDATER_DISABLED', true );\ndefine( 'WP_HTTP_BLOCK_EXTERNAL', true );\n\n";
    $text = str_replace("/* That's all, stop editing!", $calm . "/* That's all, stop editing!", $text);
    $new = $file . '.new';
    file_put_contents($new, $text);
    chmod($new, 0600);
    rename($new, $file);
}

/** The installer would tell the administrator by mail: nobody waits for it here. */
function wp_new_blog_notification()
{
}

if (!file_exists("$root/wp-config.php")) {
    write_configuration("$root/wp-config.php", $settings);
}

define('WP_INSTALLING', true);
define('WP_SITEURL', 'https://' . $settings['site']);
require "$root/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

// The installer would request the site itself, which may not be served yet.
add_filter('pre_http_request', fn () => new WP_Error('offline', 'no requests while installing'));

if (!is_blog_installed()) {
    $french = in_array('fr_FR', get_available_languages(), true);
    if ($french) {
        load_default_textdomain('fr_FR');
        $GLOBALS['wp_locale'] = new WP_Locale();
    }
    $mail = 'webmestre@' . $settings['site'];
    wp_install($settings['title'], 'webmestre', $mail, true, '', $settings['password'], $french ? 'fr_FR' : '');
    // What the installer turns on after a look at the site: readable addresses, rewritten by .htaccess.
    $GLOBALS['wp_rewrite']->set_permalink_structure('/%postname%/');
    add_filter('got_rewrite', '__return_true');
    save_mod_rewrite_rules();
}

// The article stands at /article/, whatever its title.
$author = username_exists('webmestre');
wp_set_current_user($author);
update_option('blogname', $settings['title']);
$known = get_page_by_path('article', OBJECT, 'post');
$post = [
    'ID' => $known ? $known->ID : 0,
    'post_title' => $settings['article'],
    'post_name' => 'article',
    'post_content' => "<!-- wp:paragraph -->\n<p>" . esc_html($settings['text']) . "</p>\n<!-- /wp:paragraph -->",
    'post_status' => 'publish',
    'post_author' => $author,
];
$done = wp_insert_post(wp_slash($post), true);
if (is_wp_error($done)) {
    fwrite(STDERR, $done->get_error_message() . "\n");
    exit(1);
}
echo json_encode(['version' => $GLOBALS['wp_version']]), "\n";
