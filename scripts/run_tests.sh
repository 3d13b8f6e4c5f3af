#!/bin/bash
# Runs every check and every test, and first installs what is missing.
#
#   sudo scripts/run_tests.sh                        all of them
#   sudo scripts/run_tests.sh [PYTEST ARGUMENTS]     the checks, and these tests: tests/elf, -k name
#
# Two passes: everything that needs no root runs as the checkout's owner with no capability at all, so that a test
# which quietly wants root fails; then the root tier.  A test that is skipped in either is a failure (tests/conftest.py).
set -euo pipefail

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "run_tests.sh: $*" >&2
    exit 1
}

is_provisioned() {
    local program
    for program in gcc shellcheck debootstrap ruby node npm tmux perf; do
        command -v "$program" >/dev/null || return 1
    done
    .venv/bin/python -c 'import bcc, elftools, hypothesis, playwright, pytest, rich, typer, pyflame_ebpf.symbols.demangle' 2>/dev/null &&
        [[ -x .venv/bin/ruff && -x .venv/bin/mypy && -x .venv/bin/lint-imports ]]
}

unprivileged() {
    setpriv --reuid "$owner" --regid "$group" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
        env HOME="$owner_home" "$@"
}

# The closing check that the root tier was there: tests that were deselected or skipped leave no trace in a status.
report_root_tier() {
    .venv/bin/python - "$1" <<'PYTHON'
import sys
import xml.etree.ElementTree as ElementTree

suite = ElementTree.parse(sys.argv[1]).getroot().find("testsuite")
skipped = [case.get("name") for case in suite.iter("testcase") if case.find("skipped[@type='pytest.skip']") is not None]
print(f"root tier: {suite.get('tests')} tests ran, {len(skipped)} skipped {' '.join(skipped)}")
sys.exit(int(suite.get("tests")) == 0 or bool(skipped))
PYTHON
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
[[ $EUID == 0 ]] || die "must run as root: sudo scripts/run_tests.sh"
cd "$(dirname "$0")/.."
owner=$(stat -c %u .)
group=$(stat -c %g .)
owner_home=$(getent passwd "$owner" | cut -d: -f6)
# root's home is closed to others, and the first pass wants the interpreters too.
((owner == 0)) || export PYFLAME_TESTBED=${PYFLAME_TESTBED:-/var/cache/pyflame-testbed}
[[ ! -d $owner_home/.pyenv ]] || export PYENV_ROOT=${PYENV_ROOT:-$owner_home/.pyenv}
export PYFLAME_REQUIRE_ROOT_TESTS=1 PYTHONDONTWRITEBYTECODE=1

is_provisioned || scripts/provision.sh --tests
scripts/testbed.sh ${PYFLAME_TESTBED:+"$PYFLAME_TESTBED"}
export PATH=$PWD/.venv/bin:$PATH
python tests/interpreters.py

unprivileged ruff check .
unprivileged ruff format --check .
unprivileged mypy
unprivileged lint-imports --no-cache
shellcheck scripts/*.sh .ci/run
unprivileged scripts/build_report_page.sh --check

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
failed=0 # the second pass runs whatever the first one says: both are worth knowing
unprivileged pytest -p no:cacheprovider -m "not root" "$@" || failed=1
pytest -p no:cacheprovider -m root --junitxml="$results/root.xml" "$@" || failed=1
report_root_tier "$results/root.xml" || failed=1
exit "$failed"
