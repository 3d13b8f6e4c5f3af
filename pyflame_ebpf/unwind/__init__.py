"""From a native frame to its caller: `.eh_frame` becomes rows, and rows lead from a frame's registers to its caller's.

Reads files, never a process.  Only `x86_64.py` knows an architecture; `architecture.py` chooses it.
"""
