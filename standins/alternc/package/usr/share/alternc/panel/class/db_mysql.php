<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// The database: one cursor, errors are warnings and `false`, never exceptions.
class DB_Sql
{
    public $Record = [];
    private $pdo = null;
    private $cursor = null;
    private $error = null;

    function __construct($db, $host, $user, $passwd)
    {
        try {
            $this->pdo = new PDO("mysql:dbname=$db;host=$host", $user, $passwd, [PDO::ATTR_ERRMODE => PDO::ERRMODE_WARNING]);
        } catch (PDOException $e) {
            echo 'No database: ', $e->getMessage();  // on stdout, and the program goes on (fault 9)
        }
    }

    function is_connected()
    {
        return $this->pdo !== null;
    }

    function query($query, $arguments = false)
    {
        if (empty($query) || !$this->pdo) {
            return false;
        }
        if ($arguments === false) {
            $done = (bool) ($this->cursor = $this->pdo->query($query));
        } else {
            $this->cursor = $this->pdo->prepare($query);
            $done = $this->cursor && $this->cursor->execute($arguments ?: null);
        }
        $this->error = $done ? null : ($this->cursor ?: $this->pdo)->errorInfo();
        return $done;
    }

    function next_record()
    {
        $this->Record = $this->cursor ? $this->cursor->fetch(PDO::FETCH_BOTH) : false;
        return (bool) $this->Record;
    }

    function fetch($mode = PDO::FETCH_ASSOC)
    {
        return $this->cursor ? $this->cursor->fetch($mode) : false;
    }

    function fetchAll()
    {
        return $this->cursor ? $this->cursor->fetchAll(PDO::FETCH_BOTH) : false;
    }

    function f($name)
    {
        return $this->Record[$name] ?? false;
    }

    function num_rows()
    {
        return $this->cursor ? $this->cursor->rowCount() : 0;
    }

    function affected_rows()
    {
        return $this->num_rows();
    }

    function free()
    {
        $this->cursor && $this->cursor->closeCursor();
    }

    function lastid()
    {
        return $this->pdo->lastInsertId();
    }

    function quote($string)
    {
        return $this->pdo->quote($string);
    }

    function exec($query)
    {
        return $this->pdo->exec($query);
    }

    function last_error()
    {
        return $this->error;
    }

    /** All rows of a query: a hook that runs between two of them may then use the same object. */
    function rows($query, $arguments = false)
    {
        return $this->query($query, $arguments) ? $this->cursor->fetchAll(PDO::FETCH_ASSOC) : [];
    }

    /** The first row, or false; `Record` holds it too. */
    function row($query, $arguments = false)
    {
        return $this->query($query, $arguments) && $this->next_record() ? $this->Record : false;
    }
}

class DB_system extends DB_Sql
{
    function __construct()
    {
        parent::__construct($GLOBALS['L_MYSQL_DATABASE'], $GLOBALS['L_MYSQL_HOST'], $GLOBALS['L_MYSQL_LOGIN'], $GLOBALS['L_MYSQL_PWD']);
    }
}
