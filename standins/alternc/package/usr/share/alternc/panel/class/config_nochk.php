<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// The way in for programs: nobody logs in.
define('NOCHECK', 1);
require_once __DIR__ . '/config.php';
