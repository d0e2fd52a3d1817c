<?php
// SPDX-FileCopyrightText: Infini <https://infini.fr>
// SPDX-License-Identifier: GPL-3.0-or-later
// The only page of the panel that the stand-in has: its form, and what was wrong with the last try.
require_once '../class/config_nochk.php';
if ($mem->checkid(false)) {
    header('Location: /main.php');
    exit;
}
$mem->del_session();
?>
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>AlternC</title></head>
<body>
<?php echo $msg->msg_html_all(); ?>
<form action="login.php" method="post">
<?php csrf_get(); ?>
<label>Login <input type="text" name="username"></label>
<label>Password <input type="password" name="password"></label>
<input type="submit" name="submit" value="Enter">
</form>
</body>
</html>
