#!/usr/bin/env python3
"""Print how long `pyflame-ebpf record --all` takes until it records, and the CPU time that it has used by then.

    sudo scripts/bench_start.py                          medians of five starts
    sudo scripts/bench_start.py --against CHECKOUT       beside another checkout, in turns

The command itself is timed until it says that it records, which is when the first tick may come.  Its modules are
compiled before, as those of an installed package are.  A start that another recording prevents does not count.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time

from _benchmark import benchmark_options
from _recordings import CHECKOUT, cpu_seconds

from pyflame_ebpf.recording.host_lock import AlreadyRecording


def start_once(directory: str) -> tuple[float, float] | None:
    """Return (seconds, CPU seconds) from the command to its word that it records; None while another profiler does."""
    command = [sys.executable, "-m", "pyflame_ebpf", "record", "--all", "--duration", "0.5", "--output", directory]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    began = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        seconds, cpu = time.monotonic() - began, cpu_seconds(process.pid)
        process.communicate()
    if said.startswith("recording "):
        return seconds, cpu
    if process.returncode != AlreadyRecording.exit_code:
        sys.exit(f"the command failed: {said}")
    return None


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="starts; default 5")
    options = benchmark_options(parser)
    compileall.compile_dir(CHECKOUT / "pyflame_ebpf", quiet=1)
    starts: list[tuple[float, float]] = []
    while len(starts) < options.repeat:
        with tempfile.TemporaryDirectory() as directory:
            if start := start_once(f"{directory}/out"):
                starts.append(start)
            else:
                time.sleep(0.3)
    seconds, cpu = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"command to first tick {seconds:.2f} s, CPU until then {cpu:.2f} s; medians of {len(starts)}")


if __name__ == "__main__":
    main()
