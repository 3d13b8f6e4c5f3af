#!/bin/bash
# Installs pyflame-ebpf from this checkout for every user of the machine, sudo included.
#
#   sudo scripts/install.sh               install, or upgrade what an earlier run installed
#   sudo scripts/install.sh --uninstall   remove what it installed
#
# PREFIX (default /opt/pyflame-ebpf) holds a virtual environment, BIN (default /usr/local/bin) the command.  Each run
# builds a new environment beside the old one and then turns one link, so that a failed upgrade changes nothing; the
# previous environment stays until the run after, for recordings that are still going on.
set -euo pipefail
umask 022

prefix=$(realpath -m "${PREFIX:-/opt/pyflame-ebpf}")
bin=$(realpath -m "${BIN:-/usr/local/bin}")
command_link=$bin/pyflame-ebpf
target=$prefix/current/bin/pyflame-ebpf

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "install.sh: $*" >&2
    exit 1
}

is_ours() {
    [[ -L $1 && $(readlink "$1") == "$target" ]]
}

uninstall() {
    ! is_ours "$command_link" || rm "$command_link"
    if [[ -d $prefix ]]; then
        rm -rf --one-file-system "$prefix"/venv.??????
        rm -f "$prefix/current"
        rmdir "$prefix" 2>/dev/null || die "$prefix holds files that were not installed by this script; they are left there"
    fi
    echo "pyflame-ebpf is removed.  Debian's bcc stays, since others may use it: apt-get remove python3-bpfcc"
}

# The command runs as root, so it is not pip's, whose Python would run what the caller's environment names:
# PYTHONPATH, and usercustomize.py in a HOME that sudo kept (-I leaves all of that out).
write_command() {
    cat >"$1/pyflame-ebpf" <<END
#!$1/python -I
from pyflame_ebpf.__main__ import main

if __name__ == "__main__":
    main()
END
}

build_environment() {
    local environment=$1
    /usr/bin/python3 -m venv --system-site-packages "$environment" &&
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check . &&
        write_command "$environment/bin" &&
        "$environment/bin/python" -I -c 'from bcc import BPF' &&
        "$environment/bin/pyflame-ebpf" --version
}

turn_link() {
    ln -s "$1" "$2.new"
    mv -T "$2.new" "$2" # rename(2): there is never a moment without the command
}

install() {
    local environment previous
    [[ ! -e $command_link && ! -L $command_link ]] || is_ours "$command_link" ||
        die "$command_link exists and is not from this script; move it away, then try again"
    scripts/provision.sh --runtime
    mkdir -p "$prefix" "$bin"
    environment=$(mktemp -d "$prefix/venv.XXXXXX")
    chmod 755 "$environment"
    if ! build_environment "$environment"; then
        rm -rf "$environment"
        rmdir --ignore-fail-on-non-empty "$prefix"
        die "building the environment failed, see above; what was installed before is unchanged"
    fi
    previous=$(readlink "$prefix/current" || true)
    rm -f "$prefix/current.new" "$command_link.new" # of a run that was interrupted
    turn_link "$(basename "$environment")" "$prefix/current"
    turn_link "$target" "$command_link"
    find "$prefix" -mindepth 1 -maxdepth 1 -name 'venv.??????' \
        ! -name "$(basename "$environment")" ! -name "${previous:-none}" -exec rm -rf {} +
}

# Only root may ask sudo for it.  Debian's and Ubuntu's own sudoers have /usr/local/bin in secure_path.
check_sudo_finds_it() {
    local secure_path
    command -v sudo >/dev/null || return 0
    secure_path=$(sudo -V | sed -n "s/^Value to override user's \$PATH with: //p")
    [[ -z $secure_path || :$secure_path: == *:$bin:* ]] ||
        echo "install.sh: sudo does not look in $bin: add it to secure_path (visudo), or type sudo $command_link" >&2
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
[[ $# == 0 || $* == --uninstall ]] || die "unknown argument $*; see --help"
[[ $EUID == 0 ]] || die "must run as root: sudo scripts/install.sh"
cd "$(dirname "$0")/.."
if [[ ${1:-} == --uninstall ]]; then
    uninstall
    exit 0
fi
install
check_sudo_finds_it
echo "pyflame-ebpf is installed: sudo pyflame-ebpf record --all --duration 60"
