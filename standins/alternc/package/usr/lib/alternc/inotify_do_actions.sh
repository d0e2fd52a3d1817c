#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# For incron. It runs first and takes the flag away afterwards: a flag set meanwhile is lost (fault 2).
. /etc/alternc/local.sh
if [ -e "$INOTIFY_DO_ACTION" ]; then
  /usr/lib/alternc/do_actions.php
  rm "$INOTIFY_DO_ACTION"
fi
exit 1
