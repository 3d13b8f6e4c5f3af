"""The outputs: one writer per format, each a function from a Profile to a stream.  ``formats`` has the table of them.

Prints nothing, reads nothing but the profile, and computes a figure once for all formats that show it.
"""
