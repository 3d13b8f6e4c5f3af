"""ELF files: segments, sections, build ids, symbols, PLT stubs.

Every value in a file is untrusted.  Nothing here knows a process or opens a path of one.
"""
