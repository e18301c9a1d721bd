#!/usr/bin/env bash
# Makes sure that a container engine answers, and that it has the base image which the tests build on.
# For a bare Debian machine, as root, without systemd. Says what it does on stderr. Sourced, it exports
# MODELREL_TEST_BASE_IMAGE; run as a program, it prints that name on stdout:
#
#     . .ci/docker.sh          or          export MODELREL_TEST_BASE_IMAGE="$(.ci/docker.sh)"
#
# DOCKER_HOST is honoured where it is set. Run again, it finds everything in place and is done in a second.

# A subshell, so that a script which sources this file keeps its own functions, options and traps.
_modelrel_engine_and_base() (
set -euo pipefail

work=${MODELREL_CI_CACHE:-${TMPDIR:-/tmp}/modelrel-ci}
log=$work/dockerd.log
mkdir -p "$work"

say() { echo "docker.sh: $*" >&2; }

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Debian's packages, those that are not there yet.
install() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    apt-get update -qq >&2
    # its postinst would start a service, and there is no init to start it; dockerd is started by hand below
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" \
        >"$work/apt.log" 2>&1 || {
        tail -20 "$work/apt.log" >&2
        say "apt-get could not install ${missing[*]}"
        exit 1
    }
}

# Start dockerd with the flags given, and wait until it answers.
start() {
    say "starting dockerd $*"
    rm -f /var/run/docker.pid
    setsid nohup dockerd "$@" >"$log" 2>&1 </dev/null &
    local daemon=$! second
    for second in $(seq 60); do
        answers && return 0
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.5
    done
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    return 1
}

engine() {
    if answers; then
        say "an engine answers: $(docker version --format '{{.Server.Version}}')"
        return
    fi
    install docker.io
    # What a sandbox withholds differs: netfilter, bridges, overlay mounts. Each try asks for less.
    start --iptables=false ||
        start --iptables=false --ip6tables=false --bridge=none ||
        start --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs || {
        tail -20 "$log" >&2
        say "dockerd does not start; its log is $log"
        exit 1
    }
    say "dockerd answers: $(docker version --format '{{.Server.Version}}')"
}

# A base image out of Debian packages, because a registry of images is not something a build machine must reach.
base_image() {
    local codename mirror root python name
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    name=$(docker images --format '{{.Repository}}:{{.Tag}}' "modelrel-base" | grep "^modelrel-base:$codename-py" | head -1 || true)
    if [ -n "$name" ]; then
        say "the base image is there: $name"
        echo "$name"
        return
    fi
    install debootstrap
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | awk -v release="$codename" '$2 == release { print $1; exit }')
    if [ -z "$mirror" ]; then
        say "apt-get names no mirror for $codename"
        exit 1
    fi
    root=$(mktemp -d "$work/root.XXXXXX")
    trap "rm -rf '$root'" EXIT  # expanded now: the name is gone when the script ends
    say "making the base image of Debian $codename with debootstrap; this takes about a minute"
    debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,ca-certificates \
        "$codename" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
        tail -20 "$work/debootstrap.log" >&2
        say "debootstrap failed"
        exit 1
    }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
    # no machine's sources or names in the image
    rm -f "$root"/etc/apt/sources.list "$root"/etc/hostname "$root"/etc/resolv.conf
    python=$(chroot "$root" python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    name=modelrel-base:$codename-py${python%.*}
    # PYTHON_VERSION as in the official images: it is how modelrel knows what the image holds
    tar -C "$root" --sort=name --numeric-owner -c . |
        docker import --change "ENV PYTHON_VERSION=$python" --change 'CMD ["python3"]' - "$name" >/dev/null
    say "made $name, $(docker image inspect --format '{{.Size}}' "$name") bytes"
    echo "$name"
}

engine
base_image
)

MODELREL_TEST_BASE_IMAGE=$(_modelrel_engine_and_base) || exit 1
export MODELREL_TEST_BASE_IMAGE
[ "${BASH_SOURCE[0]}" != "$0" ] || echo "$MODELREL_TEST_BASE_IMAGE"
