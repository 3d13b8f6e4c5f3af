"""From a native frame to its caller: `.eh_frame` becomes rows, and rows lead from a frame's registers to its caller's.

Reads files, never a process.  `x86_64.py` has the numbers and rules of an
architecture, and `architecture.py` chooses it; `row.py` and `walk.py` also assume, as the BPF programs do, that a call
stores its return address right below the CFA.
"""
