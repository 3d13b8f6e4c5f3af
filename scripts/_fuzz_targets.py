"""All targets of scripts/fuzz.py by name: one for each reader of bytes that the profiler does not trust."""

from __future__ import annotations

from _fuzz_files import FILE_TARGETS
from _fuzz_processes import PROCESS_TARGETS
from _fuzz_profiles import PROFILE_TARGETS
from _fuzz_python import PYTHON_TARGETS
from _fuzz_target import Target

TARGETS: dict[str, Target] = {**FILE_TARGETS, **PROCESS_TARGETS, **PYTHON_TARGETS, **PROFILE_TARGETS}
