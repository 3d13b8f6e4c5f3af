"""Puts this checkout in front of the module path, whatever else is installed: every script imports this first."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
