<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
require_once '../class/config_nochk.php';
$mem->del_session();
header('Location: index.php');
