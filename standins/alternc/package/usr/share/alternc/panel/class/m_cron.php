<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
class m_cron
{
    function hook_quota_get()
    {
        return ['name' => 'cron', 'description' => 'Scheduled tasks', 'used' => 0];
    }
}
