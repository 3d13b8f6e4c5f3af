#!/bin/bash
# Installs what pyflame-ebpf needs on Debian 12, 13 and sid and on Ubuntu 22.04 and 24.04.
#
#   scripts/provision.sh             the distribution's bcc, and .venv in the checkout for development
#   scripts/provision.sh --tests     the same, and what the tests need
#   scripts/provision.sh --runtime   the distribution's packages only, as scripts/install.sh wants them
#
# The virtual environment stands on /usr/bin/python3, never on a python of somebody's PATH: bcc is a module of the
# distribution's interpreter, and what PyPI calls bcc is something else.
set -euo pipefail

RUNTIME_PACKAGES=(python3 python3-venv python3-bpfcc python3-seccomp)
DEVELOPMENT_PACKAGES=(gcc libc6-dev)
TEST_PACKAGES=(debootstrap ruby shellcheck tmux) # a sid chroot; the Vagrantfile; these scripts; a terminal for top

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "provision.sh: $*" >&2
    exit 1
}

has_candidate() {
    [[ $(apt-cache policy "$1") == *"Candidate: "[!\(]* ]]
}

distribution() {
    sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release
}

check_distribution() {
    command -v apt-get >/dev/null ||
        die "$(distribution) has no apt-get; Debian 12 or later and Ubuntu 22.04 or later are supported"
}

# Fails early where a later message would be obscure.
check_packages() {
    has_candidate python3-bpfcc ||
        die "$(distribution) offers no package python3-bpfcc; on Ubuntu, run 'add-apt-repository universe' and try again;" \
            "elsewhere, use Debian 12 or later or Ubuntu 22.04 or later"
}

check_python() {
    [[ -x /usr/bin/python3 ]] || return 0
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "pyflame-ebpf needs Python 3.10 or later; /usr/bin/python3 is $(/usr/bin/python3 --version)"
}

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" </dev/null >/dev/null ||
        die "apt-get could not install: $*"
}

make_environment() {
    local extras=lint
    [[ $1 == --tests ]] && extras=test,lint
    [[ -x .venv/bin/python ]] || /usr/bin/python3 -m venv --system-site-packages .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    .venv/bin/python -c 'from bcc import BPF' || die ".venv does not see the distribution's bcc"
    chown -R --reference=. .venv # root made it, the checkout's owner works with it
}

# For the report's page and for readers of outputs; a node from elsewhere may refuse the distribution's npm beside it.
install_node() {
    if ! { command -v node && command -v npm; } >/dev/null; then
        install_packages nodejs npm
    fi
}

# Ubuntu's chromium is a snap, which neither a container nor a chroot can run.
install_browser() {
    if has_candidate chromium; then
        install_packages chromium
    else
        .venv/bin/playwright install --with-deps chromium
    fi
}

# For scripts/check_attacks.py; on Ubuntu it comes with perf.
install_bpftool() {
    if has_candidate bpftool; then
        install_packages bpftool
    fi
}

# For scripts/check_against_perf.py.
install_perf() {
    local package
    ! command -v perf >/dev/null || return 0
    for package in linux-perf linux-tools-generic; do # Debian's, Ubuntu's
        if has_candidate "$package"; then
            install_packages "$package"
            return 0
        fi
    done
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
mode=${1:-}
case $mode in
"" | --tests | --runtime) ;;
*) die "unknown argument $mode; see --help" ;;
esac
[[ $EUID == 0 ]] || die "must run as root: it installs packages"
cd "$(dirname "$0")/.."
check_distribution
check_python
apt-get -qq update </dev/null || echo "provision.sh: apt-get update failed; going on with the package lists there are" >&2
check_packages
install_packages "${RUNTIME_PACKAGES[@]}"
check_python
[[ $mode != --runtime ]] || exit 0
install_packages "${DEVELOPMENT_PACKAGES[@]}"
make_environment "$mode"
if [[ $mode == --tests ]]; then
    install_packages "${TEST_PACKAGES[@]}"
    install_node
    install_browser
    install_perf
    install_bpftool
fi
