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

Equal profiles give equal bytes.
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
