"""Folders of runs for tests, and processes that work in them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

HOLD = """
import sys
from neuro_lightning.artifacts.locks import lock_folder
print(lock_folder(sys.argv[1], command=sys.argv[2:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    """Start processes that are at work in a folder, as others see it."""
    started = []

    def begin(folder, *words):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *words], cwd=ROOT, **pipes)
        started.append(other)
        assert other.stdout.readline() == "True\n"
        return other

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def a_run(folder, status="finished", *files):
    for name in ("run.json", *files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"status": status}))
    return folder
