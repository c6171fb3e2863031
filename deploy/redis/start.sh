#!/bin/sh
# Usage: start.sh CONFIGURATION PASSWORD_FILE
# Redis reads the password from its standard input: it stands in no argument, no environment and no other file.
set -eu
password=$(cat "$2")
[ -n "$password" ] || { echo "$2 is empty" >&2; exit 1; }
exec redis-server - <<END
include $1
requirepass $password
END
