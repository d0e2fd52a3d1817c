<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
require_once '../class/config.php';
echo '<!DOCTYPE html><title>AlternC</title><p>', htmlspecialchars($mem->user['login']), '</p>';
