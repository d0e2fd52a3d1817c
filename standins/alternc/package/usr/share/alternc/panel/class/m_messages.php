<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// What the classes have to say; $msg is the one everybody uses.
class m_messages
{
    var $arrMessages = [];
    var $logfile = '/var/log/alternc/bureau.log';
    var $ARRLEVEL = ['ERROR', 'ALERT', 'INFO'];

    function __construct()
    {
        $this->init_msgs();
    }

    function init_msgs()
    {
        $this->arrMessages = array_fill_keys($this->ARRLEVEL, []);
    }

    function raise($level, $clsid, $msg, $param = '')
    {
        $level = $this->level($level);
        $this->arrMessages[$level][] = ['clsid' => $clsid, 'msg' => $msg, 'param' => empty($param) ? '' : (array) $param];
        $this->write($level, $this->text(end($this->arrMessages[$level])));
        return true;
    }

    /** Raise, and be the `false` that the caller returns. */
    function no($clsid, $msg, $param = '', $level = 'ERROR')
    {
        $this->raise($level, $clsid, $msg, $param);
        return false;
    }

    function has_msgs($level = '')
    {
        $levels = in_array(strtoupper($level), $this->ARRLEVEL) ? [strtoupper($level)] : $this->ARRLEVEL;
        return (bool) array_filter($levels, fn($one) => $this->arrMessages[$one]);
    }

    function msg_str($level = 'ERROR', $all = true)
    {
        $texts = array_map(fn($one) => $this->text($one), $this->arrMessages[$this->level($level)]);
        return $all ? implode('', array_map(fn($one) => "$one\n", $texts)) : (string) end($texts);
    }

    function msg_html_all()
    {
        $html = '';
        foreach (['ERROR' => 'danger', 'INFO' => 'success', 'ALERT' => 'warning'] as $level => $css) {
            if ($this->arrMessages[$level]) {
                $html .= "<div class='alert alert-$css'>" . nl2br(htmlspecialchars($this->msg_str($level))) . '</div>';
            }
        }
        return $html;
    }

    function log($clsid, $function, $param = '')
    {
        return $this->write('CALL', "$clsid - $function - $param");
    }

    function debug($clsid, $function, $param = '')
    {
        return variable_get('debug_panel', '0', '1: bureau.log says every call') ? $this->write('DEBUG', "$clsid - $function - $param") : null;
    }

    private function level($level)
    {
        if (!in_array(strtoupper($level), $this->ARRLEVEL)) {
            throw new Exception("There is no level of messages named $level");
        }
        return strtoupper($level);
    }

    private function text($message)
    {
        return is_array($message['param']) ? vsprintf($message['msg'], $message['param']) : $message['msg'];
    }

    private function write($level, $text)
    {
        $who = $GLOBALS['mem']->user['login'] ?? '';
        return @file_put_contents($this->logfile, date('d/m/Y H:i:s') . ' - ' . get_remote_ip() . " - $level - $who - $text\n", FILE_APPEND);
    }
}
