"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.elf.libraries import Build, builder


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """What compiles into the test's own folder."""
    return builder(tmp_path)
