#!/bin/sh
# Usage: secrets.sh FOLDER
# Makes each secret that is not there yet, 256 random bits, and never touches one that is: to change one, remove it first.
#
# The folder can be entered by its owner alone. The files in it can be read by anyone who gets so far: containers see a
# file without its folder, under users of their own, and could not read one that only the owner may.
set -eu
folder=$1
umask 077
mkdir -p "$folder"
chmod 0700 "$folder"

random() {
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

keep() {
    if [ -e "$folder/$1" ]; then
        echo "kept  $folder/$1"
        return 0
    fi
    return 1
}

store() { # NAME, content on standard input
    cat > "$folder/.partial"
    chmod 0444 "$folder/.partial"
    mv "$folder/.partial" "$folder/$1"
    echo "made  $folder/$1"
}

for name in redis_password sticky_secret grafana_admin_password grafana_secret_key; do
    if [ "$name" = redis_password ] && [ ! -e "$folder/$name" ] && [ -e "$folder/redis_exporter_passwords" ]; then
        echo "remove $folder/redis_exporter_passwords too: it holds the password of Redis" >&2
        exit 1
    fi
    keep "$name" || random | store "$name"
done

# The exporter wants the password beside the address that it belongs to.
keep redis_exporter_passwords ||
    printf '{"redis://redis:6379": "%s"}\n' "$(cat "$folder/redis_password")" | store redis_exporter_passwords
