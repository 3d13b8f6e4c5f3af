#!/bin/bash
# The host matrix: README's first command on distributions that have nothing yet, and then every command, in each.
#
#   scripts/host_matrix.sh [SUITE...]     bookworm trixie sid (Debian), jammy noble (Ubuntu 22.04, 24.04)
#
# Without a suite: all of Debian's, and Ubuntu's if it is said where they come from.
#
# Each is a chroot just made, with this machine's kernel and its own Python, bcc and LLVM: every LLVM makes other
# instructions of the same C, and the verifier judges those.  scripts/host_cell.py says what is proven inside.
# Takes the committed state of the checkout.  pip inside uses this machine's settings (PIP_* variables, /etc/pip.conf,
# certificates), which is how a mirror or a proxy reaches it.
#
# Environment
#   PYFLAME_TESTBED        where the chroots are made, and host-SUITE.log is left (default: ~/.cache/pyflame-testbed)
#   MIRROR                 where Debian comes from
#   UBUNTU_MIRROR          where Ubuntu comes from: a URL, no default
#
# Prints a line for each suite.  Exit status 1: one failed; 3: none failed, but one was not tested, because it could not
# be downloaded in three attempts or another recording did not end.
set -euo pipefail

MIRROR=${MIRROR:-http://deb.debian.org/debian}
UBUNTU_MIRROR=${UBUNTU_MIRROR:-}
SUITES=(bookworm trixie sid)
[[ -z $UBUNTU_MIRROR ]] || SUITES+=(jammy noble)
ATTEMPTS=3
PATIENCE=600 # seconds, for another recording to end
BUSY=75      # status of a cell that could not begin
LOCK=/run/pyflame-ebpf/lock # host_lock.LOCK_FILE; a chroot has a /run of its own

# Ubuntu's public keys, which a Debian does not have: F6EC B376 2474 EDA9 D21B 7022 8719 20D1 991B C93C (2018) and
# 790B C727 7767 219C 42C8 6F93 3B4F E6AC C0B2 1F32 (2012) sign its archive.
UBUNTU_KEYRING=pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb
UBUNTU_KEYRING_SHA256=0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "host_matrix.sh: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing; apt-get install $1"
}

remove() {
    local mount_point
    [[ -n $root ]] || return 0
    for mount_point in "$root/dev/pts" "$root/sys" "$root/proc"; do
        ! mountpoint -q "$mount_point" || umount "$mount_point"
    done
    rm -rf --one-file-system "$root"
}

fetch_ubuntu_keyring() {
    wget -nv -O "$root.deb" "$UBUNTU_MIRROR/$UBUNTU_KEYRING" &&
        sha256sum --check <<<"$UBUNTU_KEYRING_SHA256  $root.deb" &&
        dpkg-deb --fsys-tarfile "$root.deb" | tar -x -O ./usr/share/keyrings/ubuntu-archive-keyring.gpg >"$root.gpg"
}

# gutsy is debootstrap's script for all of Ubuntu; an older debootstrap does not know the newer releases by name.
bootstrap() {
    local options=(--variant=minbase --include=ca-certificates)
    case $suite in
    jammy | noble)
        fetch_ubuntu_keyring &&
            debootstrap "${options[@]}" --components=main,universe --keyring="$root.gpg" \
                "$suite" "$root" "$UBUNTU_MIRROR" gutsy
        ;;
    *) debootstrap "${options[@]}" "$suite" "$root" "$MIRROR" ;;
    esac
}

# A mirror has bad moments.  Each attempt starts from nothing.
download() {
    local attempt
    for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
        remove
        ! bootstrap || return 0
    done
    return 1
}

copy_settings() {
    local file
    for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [[ ! -e $file ]] || cp --dereference --remove-destination "$file" "$root$file" || return
    done
}

furnish() {
    mount -t proc proc "$root/proc" &&
        mount -t sysfs -o ro sysfs "$root/sys" &&
        mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts" && # top wants a terminal
        copy_settings &&
        mkdir "$root/checkout" "$root/cell" &&
        git -c safe.directory="$PWD" archive HEAD | tar -x -C "$root/checkout"
}

fresh() {
    local variable settings=()
    for variable in "${!PIP_@}"; do settings+=("$variable=${!variable}"); done
    chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 ${settings[@]+"${settings[@]}"} \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}

# What is installed must not need the checkout.
install() {
    fresh /checkout/scripts/install.sh &&
        cp "$root/checkout/scripts/host_cell.py" "$root/checkout/scripts/kernel_cell.py" "$root/cell" &&
        rm -r "$root/checkout"
}

# Makes the lock as host_lock.py does, which would not take it otherwise.
make_lock() {
    (umask 077 && mkdir -p "${LOCK%/*}" && : >>"$LOCK")
}

run_cell() {
    flock -w "$PATIENCE" 9 || return "$BUSY"
    fresh /opt/pyflame-ebpf/current/bin/python /cell/host_cell.py 9>&-
} 9>>"$LOCK"

# Says how it went with $suite, and fails as this script is to fail.
test_suite() {
    local log=$directory/host-$suite.log status=0
    if ! download >"$log" 2>&1; then
        echo "$suite: NOT TESTED: debootstrap failed $ATTEMPTS times: $(tail -n 1 "$log")"
        return 3
    elif ! furnish >>"$log" 2>&1 || ! install >>"$log" 2>&1; then
        echo "$suite: FAILED: README's command does not install it"
    else
        { make_lock && run_cell; } >>"$log" 2>&1 || status=$?
        case $status in
        0) echo "$suite: passed: $(tail -n 1 "$log")"; return 0 ;;
        "$BUSY") echo "$suite: NOT TESTED: another recording on this host does not end"; return 3 ;;
        *) echo "$suite: FAILED: $(tail -n 1 "$log")" ;;
        esac
    fi
    tail -n 40 "$log" | cut -c 1-200 | sed 's/^/    /'
    echo "    (the whole: $log)"
    return 1
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
[[ $EUID == 0 ]] || die "must run as root: it calls debootstrap, mount and chroot"
need debootstrap
need git
directory=$(realpath -m "${PYFLAME_TESTBED:-${HOME:?}/.cache/pyflame-testbed}")
mkdir -p "$directory"
[[ $# -gt 0 ]] || set -- "${SUITES[@]}"
for suite; do
    [[ $suite == jammy || $suite == noble ]] || continue
    need wget
    [[ -n $UBUNTU_MIRROR ]] || die "say where Ubuntu comes from: UBUNTU_MIRROR=URL"
done
cd "$(dirname "$0")/.."
root='' failed=0 unknown=0
trap remove EXIT
for suite; do
    root=$directory/host-$suite
    verdict=0
    test_suite || verdict=$?
    case $verdict in
    0) ;;
    3) unknown=3 ;;
    *) failed=1 ;;
    esac
    remove
    rm -f "$root.deb" "$root.gpg"
done
exit $((failed ? 1 : unknown))
