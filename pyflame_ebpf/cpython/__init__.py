"""Where each CPython release keeps what is read, and what it means: interpreters, code objects, line tables.

Knows no sample.  Releases are rows, never branches.
"""
