<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_piwik
{
    function hook_quota_get()
    {
        return ['name' => 'piwik', 'description' => 'Statistics accounts', 'used' => 0];
    }
}
