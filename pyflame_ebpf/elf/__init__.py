"""ELF files: segments, sections, build ids, functions.  Every value in them is untrusted.  Knows no process."""
