# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Sourced by the other scripts, and by those of other packages.
. /etc/alternc/local.sh

LOCK_JOBS=/run/alternc/jobs-lock

mysql_query() { /usr/bin/mysql --defaults-file=/etc/alternc/my.cnf -Bse "$@"; }

good_name() {
  [[ $1 =~ ^[a-z0-9]+$ ]] || { echo "This is not the name of an account." >&2; exit 2; }
}

get_uid_by_name() { good_name "$1"; mysql_query "SELECT uid FROM membres WHERE login = '$1'"; }
get_name_by_uid() { good_name "$1"; mysql_query "SELECT login FROM membres WHERE uid = '$1'"; }
get_html_path_by_name() { good_name "$1"; echo "$ALTERNC_HTML/${1:0:1}/$1"; }
get_uid_by_path() { local rest=${1#"${ALTERNC_HTML%/}/"}; rest=${rest#*/}; get_uid_by_name "${rest%%/*}"; }
get_variable_from_db() { mysql_query "SELECT value FROM variable WHERE name = '$1'"; }
get_account_by_domain() {
  mysql_query "SELECT login FROM membres JOIN sub_domaines ON uid = compte
    WHERE CONCAT(IF(sub = '', '', CONCAT(sub, '.')), domaine) = '$1' LIMIT 1"
}
get_uid_by_domain() {
  mysql_query "SELECT compte FROM sub_domaines WHERE CONCAT(IF(sub = '', '', CONCAT(sub, '.')), domaine) = '$1' LIMIT 1"
}
generate_string() { tr -dc A-Za-z0-9_- </dev/urandom | head -c "${1:-20}"; echo; }
log_error() { echo "$(date) $0: $1" | tee -a /var/log/alternc/update_domains.log >&2; exit 1; }
lock_jobs() { mkdir -p "${LOCK_JOBS%/*}"; touch "$LOCK_JOBS"; }
unlock_jobs() { rm -f "$LOCK_JOBS"; }
stop_if_jobs_locked() {
  test -e "$LOCK_JOBS" || return 0
  echo "No job runs while $LOCK_JOBS is there: alternc.install runs, or did not end well."
  exit 42
}
