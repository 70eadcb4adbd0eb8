#!/bin/sh
# Installs the servers that `make test-production` starts, where they are missing: Debian's packages, without starting
# anything.
set -eu

missing=
command -v redis-server >/dev/null || missing="redis-server"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: received no $missing, expected Debian's packages (as root: apt-get install $missing)" >&2
    exit 1
fi
apt-get update -qq
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
