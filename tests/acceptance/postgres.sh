#!/bin/sh
# A throw-away PostgreSQL on the loopback: postgres.sh PORT
# Prints its URL once it answers. SIGTERM ends it, and nothing of it is left.
set -eu
port=$1
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
folder=$(mktemp -d)
as=
if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses root
    user=$(id -un postgres 2>/dev/null || echo nobody)
    chown "$user" "$folder"
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi
server=
tidy() {
    [ -z "$server" ] || { kill -INT "$server" 2>/dev/null && wait "$server"; } || true
    rm -rf "$folder"
}
trap tidy EXIT
trap 'exit 0' TERM INT
cd "$folder"
$as initdb -D "$folder/data" -U headstart --auth=trust --no-sync >"$folder/initdb.log" 2>&1 ||
    { cat "$folder/initdb.log" >&2; exit 1; }
$as postgres -D "$folder/data" -h 127.0.0.1 -p "$port" -k "$folder" -c fsync=off >&2 &
server=$!
until pg_isready -q -h 127.0.0.1 -p "$port"; do
    kill -0 "$server" 2>/dev/null || exit 1
    sleep 0.1
done
echo "postgresql+asyncpg://headstart@127.0.0.1:$port/postgres"
wait "$server"
