#!/bin/bash
# Makes a Debian sid chroot with the newest CPython releases, which the distribution under test does not have.
#
#   scripts/testbed.sh [DIR]            make or complete DIR/sid (default ~/.cache/pyflame-testbed), print its interpreters
#   scripts/testbed.sh --remove [DIR]   unmount it and delete it
#
# Run again, it only does what is missing.  Interpreters run inside by `chroot DIR/sid /usr/bin/python3.N`: they need
# sid's libc, and a profiler that finds them there has crossed a root directory that is not its own.
set -euo pipefail

MIRROR=${MIRROR:-http://deb.debian.org/debian}
RELEASES=(3.13 3.14 3.15)

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "testbed.sh: $*" >&2
    exit 1
}

# Mount points at or below a directory, innermost first.
mounts_below() {
    awk -v root="$1" '$5 == root || index($5, root "/") == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

remove() {
    local root=$1 mount_point
    [[ -e $root ]] || return 0
    mounts_below "$root" | while read -r mount_point; do umount "$mount_point"; done
    [[ -z $(mounts_below "$root") ]] || die "$root is still in use; end the processes that run in it, then try again"
    # A second guard: rm must never reach through a mount into the host's /proc or /dev.
    rm -rf --one-file-system "$root"
}

bootstrap() {
    local root=$1
    command -v debootstrap >/dev/null || die "debootstrap is missing; apt-get install debootstrap"
    remove "$root.partial"
    debootstrap --variant=minbase --include=ca-certificates sid "$root.partial" "$MIRROR" >"$root.log" 2>&1 ||
        die "debootstrap failed; its last words: $(tail -n 5 "$root.log")"
    mv "$root.partial" "$root"
}

# debootstrap makes null, zero, urandom and so on as nodes of the chroot's own, so only proc has to be mounted.
mount_proc() {
    [[ -c $1/dev/null && -c $1/dev/urandom ]] || die "$1/dev has no device nodes; is its file system mounted nodev?"
    mountpoint -q "$1/proc" || mount -t proc proc "$1/proc"
}

in_chroot() {
    local root=$1
    shift
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# Not every release is in sid at every time: those that are not there are left out.
# A mirror that lags behind Debian, or stands still, is as good here: hence no Valid-Until.
install_interpreters() {
    local root=$1 release packages=()
    for release in "${RELEASES[@]}"; do
        [[ -x $root/usr/bin/python$release && -n $(compgen -G "$root/usr/lib/*/libpython$release.so.1.0") ]] ||
            packages+=("python$release" "libpython$release")
    done
    ((${#packages[@]})) || return 0
    in_chroot "$root" apt-get -qq -o Acquire::Check-Valid-Until=false update
    mapfile -t packages < <(in_chroot "$root" apt-cache --generate pkgnames | grep -Fx "$(printf '%s\n' "${packages[@]}")")
    ((${#packages[@]})) || return 0
    in_chroot "$root" apt-get -qq -y install --no-install-recommends "${packages[@]}" >>"$root.log" 2>&1 ||
        die "installing ${packages[*]} failed; its last words: $(tail -n 5 "$root.log")"
    in_chroot "$root" apt-get clean
}

print_interpreters() {
    local root=$1 release found=0
    for release in "${RELEASES[@]}"; do
        [[ -x $root/usr/bin/python$release ]] || continue
        in_chroot "$root" "/usr/bin/python$release" -c 'import json, ssl, threading' ||
            die "$root/usr/bin/python$release does not run"
        echo "$root/usr/bin/python$release"
        found=1
    done
    ((found)) || die "sid has none of: ${RELEASES[*]}"
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
action="make"
if [[ ${1:-} == --remove ]]; then
    action=remove
    shift
fi
[[ ${1:-} != -* ]] || die "unknown option $1; see --help"
[[ $EUID == 0 ]] || die "must run as root: it calls debootstrap, mount and chroot"
directory=${1:-${HOME:?}/.cache/pyflame-testbed}
mkdir -p "$directory"
directory=$(realpath "$directory")
exec 9>"$directory/lock"
flock 9 # one at a time; a second caller then finds everything made

if [[ $action == remove ]]; then
    remove "$directory/sid"
    remove "$directory/sid.partial"
    rm -f "$directory/sid.log" "$directory/lock"
    rmdir --ignore-fail-on-non-empty "$directory"
    exit 0
fi
[[ -d $directory/sid ]] || bootstrap "$directory/sid"
mount_proc "$directory/sid"
install_interpreters "$directory/sid"
print_interpreters "$directory/sid"
