"""CPython itself: which release a process runs, where each release keeps its frames, what code objects say.

Knows no sample.  Releases are rows, never branches.
"""
