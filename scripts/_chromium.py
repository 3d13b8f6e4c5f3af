"""Headless Chromium, for the scripts that measure or photograph an output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def executable() -> str:
    """Return where Chromium is: CHROMIUM of the environment, or on the path; "" for nowhere."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""


@contextmanager
def chromium_page(width: int, height: int) -> Iterator[Page]:
    """Open an empty page of this size in CSS pixels; its browser ends with it.

    Without an ``executable`` it is the browser that playwright installed.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the rest of a script works without it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable() or None, args=ARGUMENTS)
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()
