#!/bin/sh
# The part of the official image's behaviour that docker-compose.yml relies on: POSTGRES_USER, POSTGRES_DB,
# POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE at the first start, started as root and run as postgres. A data directory is
# made whole or not at all.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$(dirname "$PGDATA")"
    chown -R postgres:postgres /var/lib/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
: "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    draft="$PGDATA.new"
    rm -rf "$draft"
    mkdir -p "$(dirname "$PGDATA")"
    password="${POSTGRES_PASSWORD_FILE:-}"
    if [ -z "$password" ]; then
        password="$(mktemp)"
        printf '%s\n' "${POSTGRES_PASSWORD:?a password is needed}" > "$password"
    fi
    initdb -D "$draft" -U "$POSTGRES_USER" --auth=scram-sha-256 --auth-local=trust --pwfile="$password" \
        --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C --encoding=UTF8
    echo 'host all all all scram-sha-256' >> "$draft/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$draft" postgres
    fi
    mv "$draft" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
