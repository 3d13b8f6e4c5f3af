#!/usr/bin/env python3
"""Attack recordings of this host on purpose, and check that each ends as it should.

    sudo scripts/check_attacks.py                       every attack: some 40 minutes, most of them signals
    sudo scripts/check_attacks.py --quick               the shortest form of each attack but the loads
    sudo scripts/check_attacks.py --case elf-bombs      one attack; again for more
    sudo scripts/check_attacks.py --list                their names, and what must be seen

One line for each attack: its name, ok or FAIL, and what was seen.  Status 1 unless all are ok.  The attackers are
programs of plain users (nobody), and files that they wrote.  Needs gcc and bpftool.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import _attack_cases as cases
from _attack_loads import LOADS, load
from _attack_runs import Case, Seen
from _attack_signals import signals_at_random, targets_that_change

IN_BOUNDS = "every recording ends within 2 s of its deadline, in 300 MB, with exit code 0"
CASES = (
    Case(
        name="name-that-claims-root",
        must="no source line of a file that its user may not read",
        run=cases.name_that_claims_root,
    ),
    Case(name="name-that-is-no-number", must=IN_BOUNDS, run=cases.name_that_is_no_number),
    Case(name="many-children", must="the child that computes is named", run=cases.many_children),
    Case(name="unanswered-memory", must=IN_BOUNDS, run=cases.unanswered_memory),
    Case(name="elf-bombs", must=IN_BOUNDS, run=cases.elf_bombs),
    Case(name="corrupt-interpreters", must=IN_BOUNDS, run=cases.corrupt_interpreters),
    Case(name="perf-maps", must=IN_BOUNDS, run=cases.perf_maps),
    Case(name="hostile-surroundings", must="no module of a plain user is run by root", run=cases.hostile_surroundings),
    Case(name="small-limits", must="documented exit codes, and no defect", run=cases.small_limits),
    Case(
        name="saved-profiles",
        must="each is read, or refused with a documented exit code, in 10 s and 300 MB",
        run=cases.saved_profiles,
    ),
    Case(name="lock-of-a-plain-user", must="a plain user cannot take the lock", run=cases.lock_of_a_plain_user),
    Case(name="outputs-of-others", must="outputs are for their owner alone", run=cases.outputs_of_others),
    Case(name="odd-arguments", must="one error each, with a documented exit code", run=cases.odd_arguments),
    Case(name="rights", must="no CAP_SYS_ADMIN, no CAP_SYS_MODULE, and none is regained", run=cases.rights),
    Case(name="targets-that-change", must="no sample with a name of another program", run=targets_that_change),
)
LOAD_MUST = "within 2 s of the deadline, in 300 MB, CPU time as the kernel charged it within 1 %"
SIGNALS_MUST = "no program, lock or half file is left; documented exit codes; no lost recording but by KILL"
LOAD_CASES = tuple(Case(name=f"load-{name}", must=LOAD_MUST, run=load(name)) for name in LOADS)
SIGNALS = "signals"
NAMES = (*(case.name for case in CASES), SIGNALS, *(case.name for case in LOAD_CASES))


def attempt(case: Case, quick: bool) -> Seen:
    """Try an attack in a new directory; an attack that cannot be tried has failed."""
    with tempfile.TemporaryDirectory(prefix="attack-", dir="/var/tmp", ignore_cleanup_errors=True) as place:
        try:
            return case.run(Path(place), quick)
        except Exception as error:  # noqa: BLE001 - one attack that cannot be tried does not hide the others
            return Seen(False, f"not tried: {type(error).__name__}: {error}")


def chosen_cases(arguments: argparse.Namespace) -> list[Case]:
    """Return the cases to try: those that are named, or all; quickly, all but the loads."""
    number = arguments.signals or (4 if arguments.quick else 400)
    signals = Case(name=SIGNALS, must=SIGNALS_MUST, run=signals_at_random(number, arguments.seed or time.time_ns()))
    cases = (*CASES, signals, *LOAD_CASES)
    if arguments.case:
        return [case for case in cases if case.name in arguments.case]
    return [case for case in cases if not (arguments.quick and case in LOAD_CASES)]


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the shortest form of each attack")
    parser.add_argument("--case", action="append", choices=NAMES, metavar="NAME", help="only this attack")
    parser.add_argument("--signals", type=int, metavar="N", help="how many signals are sent (400; quickly 4)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the signals' instants, which a failure names")
    parser.add_argument("--list", action="store_true", help="print the attacks and what must be seen")
    arguments = parser.parse_args()
    tried = chosen_cases(arguments)
    failed = 0
    for case in tried:
        if arguments.list:
            print(f"{case.name:24}  {case.must}")
            continue
        seen = attempt(case, arguments.quick)
        failed += not seen.well
        verdict = "ok  " if seen.well else "FAIL"
        print(f"{case.name:24}  {verdict}  {seen.text}", flush=True)
        if not seen.well:
            print(f"{'':24}        must be seen: {case.must}", flush=True)
    if not arguments.list:
        print(f"{len(tried)} attacks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
