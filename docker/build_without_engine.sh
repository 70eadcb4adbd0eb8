#!/usr/bin/env bash
# build_without_engine.sh [FOLDER]: builds docker/Dockerfile where there is no container engine, and runs nights in what was
# built. For root on Debian 12: buildah, which needs no daemon, in a chroot, on a base made by debootstrap, since there may be
# no image registry either. Needs 10 GB below FOLDER (default: a new one); the runs and logs stay there, no image does.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(readlink -m "${1:-$(mktemp -d /var/tmp/nightshift_image.XXXXXX)}")
base=localhost/python-bookworm
step=start

# Where the kernel has no overlayfs, vfs does: slower, with three times the disk.
export STORAGE_DRIVER=${STORAGE_DRIVER:-$(grep -qw overlay /proc/filesystems && echo overlay || echo vfs)}
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }

timed() { # name, command …
    step=$1
    local began=$SECONDS
    "${@:2}" >"$work/$step.log" 2>&1
    echo "$step: $((SECONDS - began)) s"
}

finish() {
    local code=$?
    [ "$code" -eq 0 ] || { echo "$step failed; the end of $work/$step.log:" && tail -n 20 "$work/$step.log"; }
    # Those of a run that was interrupted, and one that buildah leaves.
    findmnt -rno TARGET | grep "^$work/storage/" | tac | xargs -r umount || true
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf "$work/storage" "$work/run" "$work/secrets" "$work/elpv" "$work/tmp"
    exit "$code"
}

install_tools() {
    command -v buildah >/dev/null && command -v debootstrap >/dev/null && return
    apt-get update -qq
    apt-get install -qq --no-install-recommends buildah debootstrap
}

make_base() {
    local container root
    container=$(buildah from scratch)
    root=$(buildah mount "$container")
    debootstrap --variant=minbase --include=ca-certificates,python3-venv bookworm "$root"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    buildah commit --rm "$container" "$base"
}

# How this machine's pip reaches the package index; only the step that installs sees it.
write_secrets() {
    mkdir -m 0700 "$work/secrets"
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/secrets/ca.crt"
    {
        echo "[global]"
        echo "cert = /etc/ssl/certs/ca-certificates.crt"
        python3 -m pip config list | sed -nE "s/^(:env:|global)\.(index-url|extra-index-url|default-timeout)='(.*)'$/\2 = \3/p" |
            awk '!seen[$1]++' # what the environment says comes first, and goes first
    } >"$work/secrets/pip.conf"
}

build() { # target
    local digest
    digest=$(buildah inspect --type image --format '{{.FromImageDigest}}' "$base")
    buildah bud --isolation chroot --layers --file docker/Dockerfile --target "$1" --tag "localhost/$1" \
        --build-arg "PYTHON_IMAGE=$base@$digest" \
        --secret "id=pip.conf,src=$work/secrets/pip.conf" --secret "id=ca.crt,src=$work/secrets/ca.crt" .
}

# The sample images come from a wheel, which their licence keeps out of the image.
fetch_samples() { python3 -m pip install --quiet --no-deps --target "$work/elpv" --requirement requirements-demo.txt; }

enter() { # container, command …: all that is written is in volumes
    buildah run --isolation chroot \
        --env "NIGHTSHIFT_COMMIT=$(git rev-parse HEAD)" --env PYTHONPATH=/opt/nightshift:/opt/elpv \
        --volume "$work/elpv:/opt/elpv:ro" --volume "$PWD/runner:/opt/nightshift/runner:ro" \
        --volume "$work/airflow:/opt/nightshift/.airflow" --volume "$work/tmp:/tmp" --volume "$work/logs:/opt/airflow/logs" \
        --volume "$work/data:/opt/nightshift/data" --volume "$work/runs:/opt/nightshift/runs" "$1" -- "${@:2}"
}

inside() { # image, command …: as the image's user, on a read-only root file system, as compose.yaml has it
    local container root code=0
    container=$(buildah from --isolation chroot "localhost/$1")
    root=$(buildah mount "$container")
    enter "$container" true # makes the places to mount at
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t tmpfs -o mode=0755 tmpfs "$root/run" # buildah makes and removes a file there
    enter "$container" "${@:2}" || code=$?
    umount "$root/run" "$root"
    buildah rm "$container" >/dev/null
    return "$code"
}

sizes() { # of each image, unpacked and as a registry would send it
    for image in worker nightshift; do
        buildah push "localhost/$image" "oci-archive:$work/$image.tar" 2>/dev/null
        echo "$image: $(buildah images --format '{{.Size}}' "localhost/$image") unpacked," \
            "$(($(stat --format %s "$work/$image.tar") / 1000000)) MB compressed"
        rm "$work/$image.tar"
    done
}

main() {
    trap finish EXIT
    mkdir -p "$work"
    install -d -o 50000 -g 50000 "$work"/{airflow,data,logs,runs,tmp}
    timed install_tools install_tools
    timed make_base make_base
    write_secrets
    timed build_worker build worker
    timed build_nightshift build nightshift
    sizes
    timed fetch_samples fetch_samples
    timed put_samples inside worker python -m training sample --to data/solar_cells
    timed night_of_the_worker inside worker python -m training run --config dags/models/solar_cells.yaml --run runs/by_hand \
        --set store.champion=runs/champions/by_hand
    timed night_through_airflow inside nightshift python -m runner run
    tail -n 3 "$work/night_of_the_worker.log" "$work/night_through_airflow.log"
}

main # read to its end before it begins: the checkout may change meanwhile
