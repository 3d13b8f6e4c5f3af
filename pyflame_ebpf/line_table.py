"""Line tables."""

from __future__ import annotations

from enum import Enum


class LineTableFormat(Enum):
    """How a release encodes the line of each instruction."""

    LNOTAB_UNSIGNED = "co_lnotab, unsigned deltas"  # 2.7
    LNOTAB = "co_lnotab, signed line deltas"  # 3.6 to 3.9
    LINETABLE_310 = "co_linetable of 3.10"
    LOCATIONS = "co_linetable of 3.11 and later"
