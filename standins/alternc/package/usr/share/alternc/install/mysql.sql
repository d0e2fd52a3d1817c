-- SPDX-FileCopyrightText: Infini <https://infini.fr>
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- The tables of CONTRACT.md: names, columns, types and stock rows are those of AlternC 3.5.4.
-- `begin` and `end` of actions say nothing about NULL on purpose: the server's explicit_defaults_for_timestamp decides (fault 4).

CREATE TABLE IF NOT EXISTS membres (
  uid int(10) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, login varchar(128) NOT NULL DEFAULT '',
  pass varchar(255) NOT NULL DEFAULT '', enabled tinyint(4) NOT NULL DEFAULT 1, su tinyint(4) NOT NULL DEFAULT 0,
  mail varchar(128) NOT NULL DEFAULT '', lastaskpass bigint(20) unsigned DEFAULT 0, show_help tinyint(4) NOT NULL DEFAULT 1,
  lastlogin datetime NOT NULL DEFAULT '0000-00-00 00:00:00', lastfail tinyint(4) NOT NULL DEFAULT 0,
  lastip varchar(255) NOT NULL DEFAULT '', creator int(10) unsigned DEFAULT 0, canpass tinyint(4) DEFAULT 1,
  warnlogin tinyint(4) DEFAULT 0, warnfailed tinyint(4) DEFAULT 0, admlist tinyint(4) DEFAULT 0,
  type varchar(128) DEFAULT 'default', db_server_id int(10) DEFAULT NULL, notes text NOT NULL,
  created datetime DEFAULT NULL, renewed datetime DEFAULT NULL, duration int(4) DEFAULT NULL,
  UNIQUE KEY k_login (login)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS local (
  uid int(10) unsigned NOT NULL DEFAULT 0 PRIMARY KEY, nom varchar(128) NOT NULL DEFAULT '',
  prenom varchar(128) NOT NULL DEFAULT '') ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS domaines (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, compte int(10) unsigned NOT NULL DEFAULT 0,
  domaine varchar(64) NOT NULL DEFAULT '', gesdns int(1) NOT NULL DEFAULT 1, gesmx int(1) NOT NULL DEFAULT 1,
  noerase tinyint(4) NOT NULL DEFAULT 0, dns_action enum('OK','UPDATE','DELETE') NOT NULL DEFAULT 'UPDATE',
  dns_result varchar(255) NOT NULL DEFAULT '', zonettl int(10) unsigned NOT NULL DEFAULT 3600,
  UNIQUE KEY domaine (domaine)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS sub_domaines (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, compte int(10) unsigned NOT NULL DEFAULT 0,
  domaine varchar(255) NOT NULL DEFAULT '', sub varchar(255) NOT NULL DEFAULT '', valeur varchar(1024) DEFAULT NULL,
  type varchar(30) NOT NULL DEFAULT 'LOCAL', web_action enum('OK','UPDATE','DELETE') NOT NULL DEFAULT 'UPDATE',
  web_result varchar(255) NOT NULL DEFAULT '', enable enum('ENABLED','ENABLE','DISABLED','DISABLE') NOT NULL DEFAULT 'ENABLED',
  certificate_id int(10) unsigned NOT NULL DEFAULT 0, provider varchar(16) NOT NULL DEFAULT '',
  https varchar(6) NOT NULL DEFAULT '') ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS domaines_type (
  name varchar(30) NOT NULL PRIMARY KEY, description text DEFAULT NULL,
  target enum('NONE','URL','DIRECTORY','IP','IPV6','DOMAIN','TXT') NOT NULL DEFAULT 'NONE', entry text DEFAULT '',
  compatibility varchar(255) DEFAULT '', enable enum('ALL','NONE','ADMIN') NOT NULL DEFAULT 'ALL',
  only_dns tinyint(1) DEFAULT 0, need_dns tinyint(1) DEFAULT 1, advanced tinyint(1) DEFAULT 1,
  create_tmpdir tinyint(1) NOT NULL DEFAULT 0, create_targetdir tinyint(1) NOT NULL DEFAULT 0,
  has_https_option tinyint(1) NOT NULL DEFAULT 0) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS default_subdomains (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, sub varchar(255) NOT NULL, domain_type varchar(30) NOT NULL,
  domain_type_parameter varchar(255) NOT NULL, concerned enum('BOTH','MAIN','SLAVE') NOT NULL DEFAULT 'MAIN',
  enabled tinyint(1) NOT NULL DEFAULT 1,
  UNIQUE KEY unique_row (sub(60), domain_type, domain_type_parameter(60), concerned)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS address (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, domain_id bigint(20) unsigned NOT NULL,
  address varchar(255) NOT NULL, type char(8) NOT NULL, password varchar(255) DEFAULT NULL,
  enabled int(1) unsigned NOT NULL DEFAULT 1, expire_date datetime DEFAULT NULL,
  update_date timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  mail_action enum('OK','DELETE','DELETING') NOT NULL DEFAULT 'OK', UNIQUE KEY fk_domain_id (domain_id, address(190)),
  FOREIGN KEY (domain_id) REFERENCES domaines (id)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS mailbox (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, address_id bigint(20) unsigned NOT NULL,
  path varchar(255) NOT NULL, quota bigint(20) unsigned DEFAULT NULL, delivery varchar(255) NOT NULL,
  update_date timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  bytes bigint(20) NOT NULL DEFAULT 0, messages int(11) NOT NULL DEFAULT 0,
  lastlogin datetime NOT NULL DEFAULT '0000-00-00 00:00:00', lastloginsasl datetime NOT NULL DEFAULT '0000-00-00 00:00:00',
  mail_action enum('OK','DELETE','DELETING') NOT NULL DEFAULT 'OK', UNIQUE KEY address_id (address_id),
  FOREIGN KEY (address_id) REFERENCES address (id)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS recipient (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, address_id bigint(20) unsigned NOT NULL,
  recipients text NOT NULL, update_date timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  UNIQUE KEY key_id (id, address_id), KEY address_id (address_id),
  FOREIGN KEY (address_id) REFERENCES address (id)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS dovecot_quota (
  user varchar(320) NOT NULL PRIMARY KEY, quota_dovecot bigint(20) NOT NULL DEFAULT 0,
  nb_messages int(11) NOT NULL DEFAULT 0) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE IF NOT EXISTS db (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, uid int(10) unsigned NOT NULL DEFAULT 0,
  login varchar(80) NOT NULL DEFAULT '', pass varchar(80) NOT NULL DEFAULT '', db varchar(64) NOT NULL DEFAULT '',
  bck_mode tinyint(3) unsigned NOT NULL DEFAULT 0, bck_history tinyint(3) unsigned NOT NULL DEFAULT 0,
  bck_gzip tinyint(3) unsigned NOT NULL DEFAULT 0, bck_dir varchar(255) NOT NULL DEFAULT '') ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS dbusers (
  id int(10) unsigned NOT NULL AUTO_INCREMENT, uid int(10) unsigned NOT NULL DEFAULT 0, name varchar(80) NOT NULL DEFAULT '',
  password varchar(80) DEFAULT NULL, enable enum('ACTIVATED','HIDDEN','ADMIN') NOT NULL DEFAULT 'ACTIVATED',
  KEY id (id)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS db_servers (
  id int(10) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(255) NOT NULL, host varchar(255) NOT NULL,
  login varchar(255) NOT NULL, password varchar(255) NOT NULL, client varchar(255) NOT NULL) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS ftpusers (
  id int(10) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(64) NOT NULL DEFAULT '',
  password varchar(32) NOT NULL DEFAULT '', encrypted_password varchar(255) DEFAULT NULL,
  homedir varchar(128) NOT NULL DEFAULT '', uid int(10) unsigned NOT NULL DEFAULT 0, enabled tinyint(1) NOT NULL DEFAULT 1,
  UNIQUE KEY name (name), KEY homedir (homedir), KEY mid (uid)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS quotas (
  uid int(10) unsigned NOT NULL DEFAULT 0, name varchar(64) NOT NULL DEFAULT '', total bigint(20) unsigned NOT NULL DEFAULT 0,
  PRIMARY KEY (uid, name)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS defquotas (
  quota varchar(128) NOT NULL, value bigint(20) unsigned DEFAULT 0, type varchar(128) NOT NULL DEFAULT 'default',
  PRIMARY KEY (quota, type)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS variable (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(48) NOT NULL DEFAULT '', value longtext NOT NULL,
  comment mediumtext DEFAULT NULL, type text DEFAULT NULL, UNIQUE KEY name (name)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS policy (
  name varchar(64) NOT NULL PRIMARY KEY, minsize tinyint(3) unsigned NOT NULL, maxsize tinyint(3) unsigned NOT NULL,
  classcount tinyint(3) unsigned NOT NULL, allowlogin tinyint(3) unsigned NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE IF NOT EXISTS actions (
  id bigint(20) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  type enum('CREATE_FILE','FIX_USER','CREATE_DIR','DELETE','MOVE','FIX_DIR','FIX_FILE','CHMOD') DEFAULT NULL,
  parameters longtext DEFAULT NULL, creation timestamp NOT NULL DEFAULT current_timestamp(),
  begin timestamp, end timestamp, user varchar(255) DEFAULT NULL, status int(8) DEFAULT NULL) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS certificates (
  id int(10) unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, uid int(10) unsigned NOT NULL, status tinyint(3) unsigned NOT NULL,
  fqdn varchar(255) NOT NULL, altnames text NOT NULL, validstart datetime NOT NULL, validend datetime NOT NULL,
  sslcsr text NOT NULL, sslkey text NOT NULL, sslcrt text NOT NULL, sslchain text NOT NULL,
  provider varchar(16) NOT NULL DEFAULT '', created_at datetime DEFAULT current_timestamp(),
  KEY uid (uid)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3;
CREATE TABLE IF NOT EXISTS alternc_status (
  name varchar(48) NOT NULL DEFAULT '' PRIMARY KEY, value longtext NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE IF NOT EXISTS tld (
  tld varchar(128) NOT NULL DEFAULT '' PRIMARY KEY, mode tinyint(4) NOT NULL DEFAULT 0, KEY mode (mode)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS forbidden_domains (
  domain varchar(255) NOT NULL DEFAULT '', PRIMARY KEY (domain(190))) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS slaveip (
  ip varchar(40) NOT NULL, class tinyint(4) NOT NULL, PRIMARY KEY (ip, class)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS slaveaccount (login varchar(64) NOT NULL PRIMARY KEY, pass varchar(64) NOT NULL) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS sessions (
  sid varchar(32) NOT NULL DEFAULT '', uid int(10) unsigned NOT NULL DEFAULT 0, ip varchar(40) NOT NULL DEFAULT '',
  ts timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp()) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS csrf (
  cookie char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, token char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  created datetime NOT NULL, used tinyint(3) unsigned NOT NULL DEFAULT 0, PRIMARY KEY (cookie, token),
  KEY created (created)) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE IF NOT EXISTS size_web (
  uid int(10) unsigned NOT NULL DEFAULT 0 PRIMARY KEY, size int(10) unsigned NOT NULL DEFAULT 0,
  ts timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(), KEY ts (ts)) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS size_db (
  db varchar(128) NOT NULL DEFAULT '' PRIMARY KEY, size int(10) unsigned NOT NULL DEFAULT 0,
  ts timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(), KEY ts (ts)) ENGINE=InnoDB;

CREATE OR REPLACE VIEW dovecot_view AS
  SELECT CONCAT(a.address, '@', d.domaine) AS user, CONCAT('*:storage=', CAST(m.quota AS char CHARSET latin1), 'M') AS userdb_quota_rule,
    a.password AS password, m.path AS userdb_home, d.compte AS userdb_uid, d.compte AS userdb_gid,
    m.bytes AS quota_dovecot, m.messages AS nb_messages
  FROM mailbox m JOIN address a ON a.id = m.address_id JOIN domaines d ON d.id = a.domain_id WHERE a.enabled = 1;
CREATE OR REPLACE VIEW alias_view AS
  SELECT CONCAT(a.address, '@', d.domaine) AS mail,
    CONCAT(IF(m.id IS NULL, '', CONCAT(a.address, '@', d.domaine, '\n')), r.recipients) AS alias
  FROM recipient r JOIN address a ON a.id = r.address_id JOIN domaines d ON d.id = a.domain_id
    LEFT JOIN mailbox m ON m.address_id = a.id WHERE a.enabled = 1
  UNION SELECT CONCAT(m.login, '@', v.value), m.mail FROM membres m JOIN variable v ON v.name = 'mailname_bounce'
  UNION SELECT CONCAT('alterncpanel@', v.value), m.mail FROM membres m JOIN variable v ON v.name = 'mailname_bounce'
    WHERE m.uid = 2000;

INSERT IGNORE INTO domaines_type
  (name, description, target, entry, compatibility, enable, only_dns, need_dns, advanced, create_tmpdir, create_targetdir, has_https_option)
VALUES
  ('autodiscover', 'Mail clients'' automatic set-up', 'NONE', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'ADMIN', 0,1,1,0,0,0),
  ('cname', 'Alias in the DNS (CNAME)', 'DOMAIN', '%SUB% CNAME %TARGET%', '', 'ALL', 1,1,1,0,0,0),
  ('defmx', 'This server receives the mail', 'NONE', '%SUB% IN MX 5 @@DEFAULT_MX@@.', 'vhost,url,ip,ipv6,txt,dkim,defmx2', 'ADMIN', 1,1,1,0,0,0),
  ('defmx2', 'The second server receives the mail', 'NONE', '%SUB% IN MX 10 @@DEFAULT_SECONDARY_MX@@.', 'vhost,url,ip,ipv6,txt,dkim,defmx', 'ADMIN', 1,1,1,0,0,0),
  ('dkim', 'Key that signs mail (DKIM)', 'TXT', '%SUB% IN TXT "%TARGET%"', 'vhost,txt,defmx,defmx2,mx,mx2,url,ip,ipv6', 'ADMIN', 1,1,1,0,0,0),
  ('ip', 'Address elsewhere (IPv4)', 'IP', '%SUB% IN A %TARGET%', 'url,ip,ipv6,txt,dkim,mx,mx2,defmx,defmx2', 'ALL', 1,1,0,0,0,0),
  ('ipv6', 'Address elsewhere (IPv6)', 'IPV6', '%SUB% IN AAAA %TARGET%', 'ip,ipv6,txt,dkim,mx,mx2,defmx,defmx2', 'ALL', 1,1,1,0,0,0),
  ('mx', 'Mail server (MX)', 'DOMAIN', '%SUB% IN MX 5 %TARGET%', 'vhost,url,ip,ipv6,txt,dkim,mx,mx2', 'ALL', 1,1,1,0,0,0),
  ('mx2', 'Second mail server (MX)', 'DOMAIN', '%SUB% IN MX 10 %TARGET%', 'vhost,url,ip,ipv6,txt,dkim,mx,mx2', 'ALL', 1,1,1,0,0,0),
  ('panel', 'The panel under another name', 'NONE', '%SUB% IN A @@PUBLIC_IP@@', 'vhost,url,ip,ipv6,txt,dkim,mx,mx2,defmx,defmx2', 'ALL', 0,0,1,0,0,0),
  ('txt', 'Text in the DNS (TXT)', 'TXT', '%SUB% IN TXT "%TARGET%"', 'vhost,url,ip,ipv6,txt,dkim,mx,mx2,defmx,defmx2', 'ALL', 1,1,1,0,0,0),
  ('url', 'Redirection to a URL', 'URL', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'ALL', 0,0,0,0,0,0),
  ('vhost', 'Site on this server', 'DIRECTORY', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'ALL', 0,0,0,1,1,1),
  ('vhost-both', 'Site on this server, HTTP and HTTPS', 'DIRECTORY', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'NONE', 0,0,0,1,1,0),
  ('vhost-http', 'Site on this server, HTTP', 'DIRECTORY', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'NONE', 0,0,0,1,1,0),
  ('vhost-https', 'Site on this server, HTTPS', 'DIRECTORY', '%SUB% IN A @@PUBLIC_IP@@', 'txt,dkim,defmx,defmx2,mx,mx2', 'NONE', 0,0,0,1,1,0);
INSERT IGNORE INTO default_subdomains (sub, domain_type, domain_type_parameter, concerned) VALUES
  ('www', 'VHOST', '%%DOMAINDIR%%', 'MAIN'), ('', 'URL', 'http://www.%%DOMAIN%%', 'MAIN'),
  ('www', 'URL', 'http://www.%%TARGETDOM%%', 'SLAVE'), ('', 'URL', 'http://%%TARGETDOM%%', 'SLAVE');
INSERT IGNORE INTO defquotas (quota, value) VALUES
  ('dom', 1), ('mail', 10), ('ftp', 2), ('stats', 1), ('mysql', 1), ('web', 51200);
INSERT IGNORE INTO tld (tld, mode) VALUES
  ('asia',1), ('be',1), ('biz',1), ('ca',1), ('com',1), ('coop',1), ('eu',1), ('info',1), ('it',1), ('name',1), ('net',1), ('org',1),
  ('ws',1), ('asso.fr',4), ('cjb.net',4), ('eu.org',4), ('fr',4);
INSERT IGNORE INTO forbidden_domains (domain) VALUES
  ('afnic.fr'), ('nic.fr'), ('free.fr'), ('orange.fr'), ('gmail.com'), ('hotmail.com'), ('yahoo.com'), ('yahoo.fr');
INSERT IGNORE INTO alternc_status (name, value) VALUES ('alternc_version', '3.5.3~20250703002.sql');
