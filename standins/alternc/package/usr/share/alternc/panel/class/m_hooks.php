<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_hooks
{
    /** Call a method on the object of every class that has it: class name => what it returned. */
    function invoke($hname, $hparam = [], $hclass = null)
    {
        $answers = [];
        foreach ($hclass === null ? $GLOBALS['classes'] : (array) $hclass as $name) {
            $object = $GLOBALS[$name] ?? null;
            if (is_object($object) && method_exists($object, $hname)) {
                $answers[$name] = call_user_func_array([$object, $hname], $hparam);
            }
        }
        return $answers;
    }
}
