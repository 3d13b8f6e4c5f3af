"""From an address to a function: symbol tables, debug files, perf maps, the kernel's own list.

Names come from hostile files and are never trusted.  Nothing here knows a sample or a profile.
"""
