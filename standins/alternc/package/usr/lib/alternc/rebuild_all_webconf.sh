#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
. /usr/lib/alternc/functions.sh
if [ "$1" != --force ]; then
  read -rn1 -p "Write all zones and virtual hosts again (y/n)? (--force does not ask) "
  [[ $REPLY == [yY] ]] || exit 1
fi
mysql_query "UPDATE sub_domaines SET web_action = 'UPDATE' WHERE web_action != 'DELETE'"
mysql_query "UPDATE domaines SET dns_action = 'UPDATE' WHERE dns_action != 'DELETE'"
/usr/lib/alternc/update_domains.sh
echo "All zones and virtual hosts were written."
