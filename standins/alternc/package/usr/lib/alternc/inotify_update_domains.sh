#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# For incron. It runs first and takes the flag away afterwards: a flag set meanwhile is lost (fault 2).
. /etc/alternc/local.sh
if [ -e "$INOTIFY_UPDATE_DOMAIN" ]; then
  /usr/lib/alternc/update_domains.sh
  rm "$INOTIFY_UPDATE_DOMAIN"
fi
exit 1
