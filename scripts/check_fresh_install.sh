#!/bin/bash
# Proves README's first command on a machine that has nothing: a Debian chroot just made, with this machine's kernel.
#
#   scripts/check_fresh_install.sh [SUITE] [DIR]   (default: bookworm, ~/.cache/pyflame-testbed)
#
# Takes the committed state of the checkout.  pip inside uses this machine's settings (PIP_* variables, /etc/pip.conf,
# certificates), which is how a mirror or a proxy reaches it.
set -euo pipefail

MIRROR=${MIRROR:-http://deb.debian.org/debian}
suite=${1:-bookworm}
directory=${2:-${HOME:?}/.cache/pyflame-testbed}
root=$directory/fresh-$suite
busy=""

die() {
    echo "check_fresh_install.sh: $*" >&2
    exit 1
}

remove() {
    local mount_point
    [[ -z $busy ]] || kill "$busy"
    busy=""
    for mount_point in "$root/sys" "$root/proc"; do
        ! mountpoint -q "$mount_point" || umount "$mount_point"
    done
    rm -rf --one-file-system "$root"
}

bootstrap() {
    mkdir -p "$directory"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$MIRROR" >"$root.log" 2>&1 ||
        die "debootstrap failed; its last words: $(tail -n 5 "$root.log")"
    rm "$root.log"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
}

copy_settings() {
    local file
    for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [[ ! -e $file ]] || cp --dereference "$file" "$root$file"
    done
}

fresh() {
    local variable settings=()
    for variable in "${!PIP_@}"; do settings+=("$variable=${!variable}"); done
    chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 ${settings[@]+"${settings[@]}"} \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}

check_outputs() {
    local file
    for file in report.html stacks.folded flamegraph.svg processes.csv profile.json.gz; do
        [[ -s $root/root/recording/$file ]] || die "record wrote no $file"
    done
}

[[ $EUID == 0 ]] || die "must run as root: it calls debootstrap, mount and chroot"
cd "$(dirname "$0")/.."
trap remove EXIT
remove
bootstrap
copy_settings
mkdir "$root/checkout"
git -c safe.directory="$PWD" archive HEAD | tar -x -C "$root/checkout"
fresh /checkout/scripts/install.sh
rm -r "$root/checkout" # what is installed must not need it
fresh pyflame-ebpf --version
(while :; do :; done) & # or an idle machine would have nothing to sample
busy=$!
fresh pyflame-ebpf record --all --duration 5 --output /root/recording
check_outputs
echo "check_fresh_install.sh: installed on a fresh $suite, and recorded"
