"""The layout of a saved profile, ``profile.json.gz``: one JSON object of ASCII characters, compressed with gzip.

- ``format`` and ``version`` say what it is.
- ``recording`` is an object with the circumstances of the recording.  From version 4 on its ``unit`` says what the
  counts of samples are; in older versions they are ticks of the CPU clock.
- ``texts`` lists every distinct text once.  All other tables refer to texts by their index.
- ``processes``, ``threads``, ``frames``, ``nodes``, ``samples``, ``build_ids`` and ``sources`` are tables.  A table is
  an object of columns, lists of equal length.
- A node is a frame and the index of its caller's node, NO_NODE for an outermost frame.  A caller stands before its
  callees, so that common callers are stored once.
- ``stacks`` lists the innermost node of each stack, NO_NODE for a stack without frames.
- Kinds and outcomes are indices into the lists below, so their order must not change.

Equal profiles give equal bytes.  ``json_text`` and ``size_limits`` bound what is read back, and the ranges below bound
its numbers.  They leave room for everything that a recording or a file of another tool can hold, and none for numbers
with which an output could not work.
"""

from __future__ import annotations

from pyflame_ebpf.profile.model import Clock, FrameKind, Gil, NativeOutcome, Outcome

FORMAT = "pyflame-ebpf profile"
VERSION = 4  # the newest that is read, and written for what older ones cannot tell: a "unit" of the samples
VERSION_OF_TICKS = 3  # 2 had no build ids and no source text; 1 no "plumbing" of frames, no "native" of samples
NO_NODE = -1
CLOCKS = list(Clock)
FLAGS = [False, True]
KINDS = list(FrameKind)
GILS = list(Gil)
OUTCOMES = list(Outcome)
NATIVE_OUTCOMES = list(NativeOutcome)

SECONDS_MAX = 366 * 86_400  # of a recording
DURATION_MIN = 1e-6  # seconds, of a recording whose duration is known; shares of less may be infinite
SECONDS_AFTER_END_MAX = 5  # of a sample; other tools tell no duration, and all of their samples are in second 0
STARTED_MAX = 253_402_300_799  # the last second of the year 9999
FREQUENCY_MAX = 1_000_000  # samples per second; Austin's microseconds are read as that
CPUS_MAX = 1 << 16
CPU_SECONDS_MAX = SECONDS_MAX * CPUS_MAX
NUMBER_MAX = (1 << 63) - 1  # of what is counted
ID_MAX = (1 << 64) - 1  # of a PID or TID; other tools write addresses of threads
LINE_MIN, LINE_MAX = -(1 << 31), (1 << 32) - 1  # a target's own numbers of 32 bits, whatever their sign
