"""What all tests share: the tiers' rules, every interpreter, and target programs that always end."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interpreters import Interpreter, discover, has_capability
from tests.target_process import TargetProcess

CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h
TIERS_NEVER_SKIPPED_IN_CI = ("walker", "root", "browser", "node")

StartTarget = Callable[..., TargetProcess]  # (interpreter, program, *arguments, **environment)


def nothing_may_be_skipped() -> bool:
    """Whether a skipped test of a tier that needs something special counts as failed."""
    return os.environ.get("CI") == "true" or os.environ.get("PYFLAME_REQUIRE_ROOT_TESTS") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the root tier where it cannot work; where nothing may be skipped, that fails it."""
    if has_capability(CAP_SYS_ADMIN):
        return
    reason = "loads BPF programs, which needs root: sudo scripts/run_tests.sh"
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where it would hide that a tier did not run."""
    report = yield
    tiers = [tier for tier in TIERS_NEVER_SKIPPED_IN_CI if item.get_closest_marker(tier)]
    if report.skipped and not hasattr(report, "wasxfail") and tiers and nothing_may_be_skipped():
        report.outcome = "failed"
        report.longrepr = f"a test of tier {tiers[0]} must run here, but was skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips itself while it is imported."""
    report = yield
    if report.skipped and nothing_may_be_skipped():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} must run here, but was skipped: {report.longrepr}"
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``each_interpreter`` once on each of them."""
    if "each_interpreter" in metafunc.fixturenames:
        metafunc.parametrize("each_interpreter", discover(), ids=str)


@pytest.fixture(scope="session")
def interpreters() -> tuple[Interpreter, ...]:
    """Every interpreter on this machine, oldest release first."""
    return discover()


@pytest.fixture
def start_target() -> Iterator[StartTarget]:
    """Start ``(interpreter, program, *arguments, **environment)`` and wait for its "ready"; killed at the end.

    ``program`` is a path, or a file name in tests/targets/.
    """
    with ExitStack() as running:

        def start(interpreter: Interpreter, program: str | Path, *arguments: str, **environment: str) -> TargetProcess:
            target = TargetProcess(interpreter, program, *arguments, **environment)
            running.callback(target.close)
            target.wait_until_ready()
            return target

        yield start


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Every descriptor below 1024, more than select() takes, is open, as in the recording of a large host."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, limits[1]), limits[1]))
    with ExitStack() as opened:
        while (descriptor := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) < 1024:
            opened.callback(os.close, descriptor)
        opened.callback(os.close, descriptor)
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
