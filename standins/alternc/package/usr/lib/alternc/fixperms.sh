#!/bin/bash
# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# Owners, modes and ACLs of members' files: of all, or of one account (-l, -u), one directory (-d) or one file (-f).
. /usr/lib/alternc/functions.sh

usage() {
  echo "fixperms.sh: ${1:-everybody} [-l LOGIN | -u UID | -d DIRECTORY | -f FILE]"
  exit 1
}
[ -f /etc/alternc/disable_all_fixperms ] && usage "/etc/alternc/disable_all_fixperms says no"
where=1 dir='' file=''
while getopts "hl:u:d:f:" option; do
  case $option in
    l) [[ $OPTARG =~ ^[a-zA-Z0-9_]+$ ]] || usage "not a login"; where="login = '$OPTARG'" ;;
    u) [[ $OPTARG =~ ^[0-9]+$ ]] || usage "not a uid"; where="uid = '$OPTARG'" ;;
    d) dir=$OPTARG ;;
    f) file=$OPTARG ;;
    *) usage ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "Only root may."; exit 1; }

acl() {
  local uid=$1 rules=o::---,d:o::---,mask:rwx,d:mask:rwx,u:www-data:r-x,d:u:www-data:r-x who
  for who in u:alterncpanel g:alterncpanel "u:$uid" "g:$uid"; do
    rules+=,$who:rwx,d:$who:rwx
  done
  setfacl -bknR -m "$rules" "$2"
}
tmp() {
  mkdir -p "$1/tmp"
  chmod 777 "$1/tmp"
}
if [ "$file" ]; then
  [ -e "$file" ] || { echo "There is no such file."; exit 0; }
  uid=$(get_uid_by_path "$file")
  setfacl -bk "$file"
  chown "$uid:$uid" "$file"
  chmod 0770 "$file"
  setfacl -m "u:$uid:rw-,g:$uid:rw-,u:alterncpanel:rw-,g:alterncpanel:rw-" "$file"
elif [ "$dir" ]; then
  [ -d "$dir" ] || { echo "There is no such directory."; exit 0; }
  uid=$(get_uid_by_path "$dir")
  chown -R "$uid:$uid" "$dir"
  acl "$uid" "$dir"
  tmp "$(get_html_path_by_name "$(get_name_by_uid "$uid")")"
else
  mysql_query "SELECT uid, login FROM membres WHERE $where ORDER BY login" | while read -r uid login; do
    home=$(get_html_path_by_name "$login")
    mkdir -p "$home"
    chown -R "$uid:$uid" "$home"
    chmod -R 2770 "$home"
    acl "$uid" "$home"
    tmp "$home"
  done
fi
