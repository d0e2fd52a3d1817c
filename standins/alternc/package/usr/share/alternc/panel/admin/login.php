<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// Where the form posts: whoever is known goes on, everybody else sees the form again.
require_once '../class/config.php';
header('Location: main.php');
