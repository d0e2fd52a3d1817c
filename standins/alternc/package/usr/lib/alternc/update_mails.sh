#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# Mailboxes that are marked for deletion, their files, then their addresses.
. /usr/lib/alternc/functions.sh
stop_if_jobs_locked
LOCK=/run/alternc/update_mails
[ "$(id -u)" = 0 ] || log_error "only root may"
if [ -f "$LOCK" ] && grep -q update_mails "/proc/$(cat "$LOCK")/cmdline" 2>/dev/null; then
  log_error "the last run has not ended ($LOCK)"
fi
echo $$ >"$LOCK"
mysql_query "SELECT id, address_id, path FROM mailbox WHERE mail_action = 'DELETE'" | while IFS=$'\t' read -r id address path; do
  mysql_query "UPDATE mailbox SET mail_action = 'DELETING' WHERE id = $id"
  mysql_query "DELETE q FROM dovecot_quota q JOIN address a JOIN domaines d ON a.domain_id = d.id
    WHERE q.user = CONCAT(a.address, '@', d.domaine) AND a.id = $address"
  if [ "$path" ] && { [[ $path == *../* ]] || [[ $path == */.. ]] || [[ $path != "${ALTERNC_MAIL%/}"/* ]]; }; then
    echo "$path is not below $ALTERNC_MAIL: it stays."
    continue
  fi
  [ "$path" ] && rm -rf "$path"
  mysql_query "DELETE FROM mailbox WHERE id = $id AND mail_action = 'DELETING'"
done
mysql_query "DELETE r FROM recipient r JOIN address a ON r.address_id = a.id WHERE a.mail_action != 'OK'"
mysql_query "DELETE a FROM address a LEFT JOIN mailbox m ON a.id = m.address_id WHERE m.id IS NULL AND a.mail_action != 'OK'"
rm -f "$LOCK"
