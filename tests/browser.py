"""A headless Chromium for the tests: what it shows of a page, and what it logs."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest


def chromium() -> str:
    """The browser's command; the test is skipped where there is none, and fails where CI should have one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        assert "TEST_DOCS_SITE" not in os.environ, "chromium is missing: .ci/run installs it"
        pytest.skip("no chromium here")
    return found


def visit(address: str, folder: Path, *further: str, width: int = 1280, wait_ms: int = 20000) -> SimpleNamespace:
    """The document after its scripts ran, as ``dom``, the whole ``log``, and the ``errors`` on its console.

    Args:
        address: of the page.
        folder: for the browser's own files.
        further: arguments of the browser.
        width: of the window in pixels.
        wait_ms: the page's own time that passes before the document is taken.
    """
    done = subprocess.run(
        [
            chromium(), "--headless", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={folder}",
            "--enable-logging=stderr", f"--window-size={width},900", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--virtual-time-budget={wait_ms}", *further, "--dump-dom", address,
        ],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    errors = [line for line in console if re.search(r"error|failed|uncaught", line, re.IGNORECASE)]
    return SimpleNamespace(dom=done.stdout, log=done.stderr, errors=errors)
