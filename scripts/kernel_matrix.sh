#!/bin/bash
# The kernel matrix: boots Debian's kernels, loads every BPF program in each, and records busy Python programs.
#
#   scripts/kernel_matrix.sh [SUITE...]          bullseye (5.10) bookworm (6.1) trixie (6.12) sid
#
# Environment
#   VM_RUNNER     boots a kernel and runs a command in it (default: vm.sh, found on PATH), called like
#                     vm.sh run -c CPUS -m MEMORY -t SECONDS SUITE -- COMMAND...
#                 with this machine's root directory as the guest's, so that this checkout and its interpreters are
#                 there; output and exit status are the command's, 124 for a guest that took too long, 125 for one
#                 that died
#   PYTHON        the interpreter that runs the profiler and can import bcc (default: python3)
#   INTERPRETERS  the interpreters to record, separated by blanks (default: PYTHON)
#   CELL_OPTIONS  more options for scripts/kernel_cell.py; a guest that is emulated is some 15 times slower, and 60 s
#                 at 49 Hz give samples enough
#   CELL_SECONDS  limit of one cell (default: 600)
#
# Prints each cell (the kernel, verified instructions and load time of each program, samples, whole stacks) as it ends.
# Fails when a cell fails; sid's, a kernel that changes every week, is reported and does not count.
set -u

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
here=$(cd "$(dirname "$0")" && pwd)
runner=${VM_RUNNER:-vm.sh} python=${PYTHON:-python3} seconds=${CELL_SECONDS:-600}
read -ra interpreters <<<"${INTERPRETERS:-$python}"
read -ra options <<<"${CELL_OPTIONS:-}"
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid

command -v "$runner" >/dev/null || { echo "kernel_matrix.sh: no VM runner '$runner': set VM_RUNNER" >&2; exit 3; }
python=$(command -v "$python") || { echo "kernel_matrix.sh: no interpreter: set PYTHON" >&2; exit 3; }

meaning() { # EXIT STATUS
    case $1 in
    0) echo passed ;;
    1) echo "FAILED: the kernel refused a program" ;;
    2) echo "FAILED: stacks were not whole" ;;
    124) echo "FAILED: took longer than $seconds s" ;;
    *) echo "FAILED: status $1" ;;
    esac
}

failed=0 summary=
for suite; do
    echo "== $suite"
    "$runner" run -c 2 -m 3G -t "$seconds" "$suite" -- \
        "$python" "$here/kernel_cell.py" "${interpreters[@]}" "${options[@]}"
    status=$?
    summary+="$suite: $(meaning $status)"$'\n'
    [ $status = 0 ] || [ "$suite" = sid ] || failed=1
done
printf '\n%s' "$summary"
exit $failed
