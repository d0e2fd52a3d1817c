# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of real databases: what is loaded equals what was counted under the lock, whatever is in them."""

import json
import subprocess

import pytest

from infini import ROOT

CODE = ROOT / "module_utils/hosting"
THERE = "/run/test-dumps"
BEGIN = """
import json, os, subprocess, sys, threading
sys.path.insert(0, os.getcwd())
from hosting import dumps

server = dumps.Server()

def sql(text, database="mysql"):
    words = ["mariadb", "--binary-mode", "--default-character-set=utf8mb4", "-N", database]
    return subprocess.run(words, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout.decode()

def user_of(database):
    words = ["mariadb", "--unbuffered", "-N", database]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def drop(*names):
    for name in names:
        sql("DROP DATABASE IF EXISTS `" + name.replace("`", "``") + "`")

def say(value):
    print(json.dumps(value))
"""
# One of everything that is known to break dumps or their checksums.
ODD = r"""
CREATE DATABASE `test od``d/é` CHARACTER SET latin1 COMMENT 'infini user=velo';
USE `test od``d/é`;
CREATE TABLE myisam (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT, FULLTEXT (t)) ENGINE=MyISAM;
INSERT INTO myisam (t) SELECT CONCAT('été ', seq) FROM seq_1_to_2000;
CREATE TABLE aria (a INT, b CHAR(10)) ENGINE=Aria;
INSERT INTO aria SELECT seq, 'x' FROM seq_1_to_100;
CREATE TABLE `gene``rated é
"'\` (id INT PRIMARY KEY, v VARCHAR(200), d DATETIME(6), at TIMESTAMP, n DECIMAL(20,6),
  twice INT AS (id * 2) VIRTUAL, `thrice``` INT AS (id * 3) STORED, KEY (twice)) CHARSET utf8mb4;
INSERT INTO `gene``rated é
"'\` (id, v, d, at, n) SELECT seq, CONCAT('😀 line\n\t\\', seq, '\0'), NOW(6), NOW(), seq / 7 FROM seq_1_to_500;
CREATE TABLE approximate (id INT PRIMARY KEY, f FLOAT, d DOUBLE, f2 FLOAT(8,2));
INSERT INTO approximate SELECT seq, seq / 7, seq / 7e10, seq * 11 / 7 FROM seq_1_to_100;
CREATE TABLE binaries (id INT PRIMARY KEY, b LONGBLOB, i BIT(13), j JSON, v VARBINARY(30), y YEAR,
  e ENUM('a', 'é', ''), s SET('x', 'y'), t TIME(3), u UUID, a INET6, p POINT);
INSERT INTO binaries SELECT seq, UNHEX(SHA2(seq, 512)), seq, JSON_OBJECT('é', seq), UNHEX(MD5(seq)), 2000 + seq % 100,
  'é', 'x,y', SEC_TO_TIME(seq), UUID(), '::1', POINT(seq / 3, seq / 7) FROM seq_1_to_300;
INSERT INTO binaries (id, b) VALUES (0, REPEAT(UNHEX('00FF0A'), 4000000));
CREATE TABLE nothing (a INT);
CREATE TABLE nulls (a INT, b TEXT, c INT);
INSERT INTO nulls VALUES (NULL, NULL, 1), (1, '', NULL), (NULL, NULL, NULL);
SET sql_mode = '';
CREATE TABLE zeros (id INT PRIMARY KEY AUTO_INCREMENT, d DATE);
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
INSERT INTO zeros VALUES (0, '0000-00-00'), (1, '2020-00-10');
CREATE TABLE versions (a INT) WITH SYSTEM VERSIONING;
INSERT INTO versions VALUES (1);
UPDATE versions SET a = 2;
CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 4;
INSERT INTO parts SELECT seq FROM seq_1_to_50;
CREATE TABLE latin (t VARCHAR(50)) CHARSET latin1;
INSERT INTO latin VALUES (UNHEX('C3A9812080')), (UNHEX('80'));
CREATE TABLE compressed (a INT, t TEXT COMPRESSED) ROW_FORMAT=DYNAMIC;
INSERT INTO compressed SELECT seq, REPEAT('abc', 100) FROM seq_1_to_100;
CREATE SEQUENCE sequence START 10;
CREATE VIEW `view``2` AS SELECT id FROM myisam;
CREATE TABLE short (x INT);
CREATE VIEW broken AS SELECT x FROM short;
DROP TABLE short;
CREATE TRIGGER after_aria AFTER INSERT ON aria FOR EACH ROW INSERT INTO nothing VALUES (NEW.a);
CREATE PROCEDURE one() SELECT ';//';
CREATE FUNCTION two(x INT) RETURNS INT DETERMINISTIC RETURN x * 2;
CREATE EVENT hourly ON SCHEDULE EVERY 1 HOUR DO INSERT INTO nothing VALUES (1);
"""
NAME = "test od`d/é"


@pytest.fixture(scope="module")
def on_host(inventory):
    """Give a function that runs a program beside our code on the web host and returns what it says as JSON."""
    ssh = inventory.connection(inventory.hosts("webs")[0]).ssh()
    archive = subprocess.run(["tar", "-C", CODE.parent, "-c", CODE.name], capture_output=True, check=True).stdout
    subprocess.run([*ssh, f"mkdir -p {THERE} && tar -C {THERE} -x"], input=archive, check=True)

    given = [f"{name} = {value!r}" for name, value in (("NAME", NAME), ("ODD", ODD), ("CHANGES", CHANGES))]

    def run(program):
        done = subprocess.run(
            [*ssh, f"cd {THERE} && timeout 120 python3 -"],
            input="\n".join([BEGIN, *given, program]).encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    yield run
    subprocess.run([*ssh, f"rm -rf {THERE}"], check=True)


def test_odd_database_comes_back_equal_under_another_name(on_host):
    answer = on_host("""
drop(NAME, "test copy")
sql(ODD)
try:
    about = server.dump(NAME, ".")
    server.load(about["file"], about, "test copy")
    copy = server.look("test copy")
    state = sql("SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'test copy';"
        "SELECT SCHEMA_COMMENT, DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA"
        " WHERE SCHEMA_NAME = 'test copy'").split()
    drop(NAME)
    server.load(about["file"], about)
    say([about, dumps.compare("copy", about, copy), state, dumps.compare("again", about, server.look(NAME))])
finally:
    drop(NAME, "test copy")
""")
    about, findings, state, again = answer
    assert (findings, again) == ([], [])
    assert state == ["DISABLED", "latin1"]
    assert about["comment"] == "infini user=velo"
    assert about["broken"] == ["broken"]
    assert about["rounded"] == ["approximate.f"]
    assert about["without_history"] == ["versions"]
    assert about["objects"] == {"views": 1, "sequences": 1, "routines": 2, "triggers": 1, "events": 1}
    assert {name: table["rows"] for name, table in about["tables"].items()} == {
        "myisam": 2000,
        "aria": 100,
        "gene`rated é\n\"'\\": 500,
        "approximate": 100,
        "binaries": 301,
        "nothing": 0,
        "nulls": 3,
        "zeros": 2,
        "versions": 1,
        "parts": 50,
        "latin": 2,
        "compressed": 100,
    }


CHANGES = {
    "table_rows": "DELETE FROM myisam WHERE id = 7",
    "table_checksum": "UPDATE myisam SET t = 'x' WHERE id = 7",
    "table_missing": "DROP TABLE nothing",
    "triggers_missing": "DROP TRIGGER after_aria",
    "routines_missing": "DROP FUNCTION two",
    "views_missing": "DROP VIEW `view``2`",
    "events_missing": "DROP EVENT hourly",
    "sequences_missing": "DROP SEQUENCE sequence",
}


def test_each_loss_is_found(on_host):
    found = on_host("""
drop(NAME, "test copy")
sql(ODD)
try:
    about = server.dump(NAME, ".")
    answer = {}
    for code, change in CHANGES.items():
        drop("test copy")
        server.load(about["file"], about, "test copy")
        sql(change, "test copy")
        answer[code] = [one["code"] for one in dumps.compare("copy", about, server.look("test copy"))]
    drop("test copy")
    answer["database_missing"] = [one["code"] for one in dumps.compare("copy", about, server.look("test copy"))]
    say(answer)
finally:
    drop(NAME, "test copy")
""")
    assert found == {code: [code] for code in (*CHANGES, "database_missing")}


def test_dump_equals_its_counts_while_others_write(on_host):
    """MyISAM is what matters: writers that wait must neither come in between nor hold up the dump."""
    dumped = on_host("""
drop("test written", "test copy")
sql("CREATE DATABASE `test written`")
for engine in ("MyISAM", "InnoDB"):
    sql("CREATE TABLE " + engine + " (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT) ENGINE=" + engine
        + "; INSERT INTO " + engine + " (t) SELECT REPEAT(MD5(seq), 10) FROM seq_1_to_50000", "test written")
stop, written = threading.Event(), []

def write(table):
    client = user_of("test written")
    number = 0
    while not stop.is_set():
        number += 1
        client.stdin.write(f"INSERT INTO {table} (t) VALUES ('x');"
            f" UPDATE {table} SET t = CONCAT(t, 'y') WHERE id = {number % 1000 + 1}; SELECT 1;\\n")
        client.stdin.flush()
        client.stdout.readline()
    written.append(number)
    client.communicate()

writers = [threading.Thread(target=write, args=(table,)) for table in ("MyISAM", "InnoDB", "MyISAM")]
try:
    for writer in writers:
        writer.start()
    answer = []
    for _round in range(4):
        about = server.dump("test written", ".")
        server.load(about["file"], about, "test copy", replace=True)
        answer.append([about["tables"]["MyISAM"]["rows"], dumps.compare("copy", about, server.look("test copy"))])
finally:
    stop.set()
    for writer in writers:
        writer.join()
    drop("test written", "test copy")
say([answer, written])
""")
    rounds, written = dumped
    assert [findings for _rows, findings in rounds] == [[]] * 4
    rows = [rows for rows, _findings in rounds]
    assert rows == sorted(set(rows))  # they did write, between one dump and the next
    assert min(written) > 0


def test_database_that_was_dropped_since_it_was_listed_is_gone_and_leaves_nothing(on_host):
    answer = on_host("""
try:
    server.dump("test dropped", ".")
except dumps.DatabaseGoneError as error:
    say([error.code, [name for name in os.listdir(".") if "dropped" in name]])
""")
    assert answer == ["database_gone", []]


def test_database_in_use_is_refused_in_time_and_its_users_go_on(on_host):
    code = on_host("""
drop("test busy")
sql("CREATE DATABASE `test busy`; CREATE TABLE `test busy`.t (a INT) ENGINE=InnoDB")
user = user_of("test busy")
user.stdin.write("BEGIN; SELECT * FROM t; INSERT INTO t VALUES (1); SELECT 'in';\\n")
user.stdin.flush()
user.stdout.readline()
dumps.PATIENCE = 1
try:
    server.dump("test busy", ".")
except dumps.DumpError as error:
    code = error.code
user.communicate("COMMIT;\\n")
about = server.dump("test busy", ".")
drop("test busy")
say([code, about["tables"]])
""")
    assert code[0] == "database_busy"
    assert code[1]["t"]["rows"] == 1


def test_what_cannot_be_loaded_is_said_and_leaves_what_was_there(on_host):
    answer = on_host("""
drop("test whole", "test copy")
sql("CREATE DATABASE `test whole`; CREATE TABLE `test whole`.t (a INT); INSERT INTO `test whole`.t VALUES (1)")
about = server.dump("test whole", ".")
path = about["file"]
answer = []
text = open(path).read()

def refused(text, name):
    with open(path, "w") as file:
        file.write(text)
    try:
        server.load(path, about, name)
    except dumps.DumpError as error:
        return error.code
    return None

try:
    answer.append(refused(text, "test whole"))
    answer.append(refused(text[:-100], "test copy"))
    answer.append(refused(text.replace("INSERT INTO", "INSERT IN"), "test copy"))
    answer.append(server.look("test copy"))
    answer.append(refused(text.replace("INSERT INTO `t` VALUES\\n(1);", ""), "test copy"))
    answer.append([one["code"] for one in dumps.compare("copy", about, server.look("test copy"))])
    answer.append(server.look("test whole")["tables"]["t"]["rows"])
finally:
    drop("test whole", "test copy")
say(answer)
""")
    assert answer == ["database_not_empty", "dump_torn", "load_failed", None, None, ["table_rows"], 1]


def test_users_come_back_with_what_they_may_do_and_those_who_exist_stay_as_they_are(on_host):
    answer = on_host("""
USERS = ["`test od``d`@`localhost`", "`test role`"]

def drop_users():
    sql(f"DROP USER IF EXISTS {USERS[0]}; DROP ROLE IF EXISTS {USERS[1]}")

def grants():
    return sql(f"SHOW CREATE USER {USERS[0]};" + "".join(f"SHOW GRANTS FOR {user};" for user in USERS))

drop_users()
sql("CREATE USER `test od``d`@`localhost` IDENTIFIED BY 'one'; CREATE ROLE `test role`;"
    "GRANT ALL PRIVILEGES ON `a\\\\_b`.* TO `test od``d`@`localhost`; GRANT SELECT ON `c`.* TO `test role`;"
    "GRANT `test role` TO `test od``d`@`localhost`")
try:
    before = grants()
    server.dump_users("users.json")
    drop_users()
    made = server.load_users("users.json")
    back = grants()
    sql(f"ALTER USER {USERS[0]} IDENTIFIED BY 'two'")
    changed = grants()
    again = server.load_users("users.json")
    text = open("users.json").read()
    say([before, back, made, changed, again, grants(), "`root`" in text, os.stat("users.json").st_mode & 0o777])
finally:
    drop_users()
""")
    before, back, made, changed, again, after, roots, mode = answer
    assert before == back != changed
    assert {"`test role`", "`test od``d`@`localhost`"} <= set(made)
    assert (after, again) == (before, made), "those who exist are as they were, too"
    assert not roots
    assert mode == 0o600


def test_names_fit_patterns_and_the_servers_own_are_never_among_them(on_host):
    names = on_host("""
drop(NAME, "test one", "test two")
sql("CREATE DATABASE `test one`; CREATE DATABASE `test two`")
try:
    say([server.names(["*"]), server.names(["test o*", "test one", "mysql"])])
finally:
    drop("test one", "test two")
""")
    assert {"test one", "test two"} <= set(names[0])
    assert not {"mysql", "sys", "information_schema", "performance_schema"} & set(names[0])
    assert names[1] == ["test one"]
