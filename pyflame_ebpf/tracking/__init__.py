"""The processes that were met while sampling: what each runs, what it has mapped, which of its files can be read.

Reads processes through their directories in /proc alone, so that a PID that is used again never answers.  Loads no BPF
program and names nothing: it tells the programs through ``TrackedMaps``, and others what a process had.
"""
