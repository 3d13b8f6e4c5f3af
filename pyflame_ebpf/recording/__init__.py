"""A recording from start to end, as a sequence of segments.

``recorder`` samples and hands out segments, ``segments`` cuts them and lets stores forget, ``profiles`` and
``named_segments`` name them.  Prints nothing, and knows no output.
"""
