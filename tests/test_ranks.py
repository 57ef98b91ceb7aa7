"""Which of a job's processes is the main one."""

import re

import pytest
from runs import ROOT

from neuro_lightning.ranks import count_launched_processes, is_main_process, main_process_only


@pytest.mark.parametrize(
    ("environment", "main", "together"),
    [
        ({}, True, 1),
        ({"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "8"}, False, 8),  # torchrun, second node
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, True, 8),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, 1),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False, 1),  # started by a task of SLURM's
        ({"SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "8"}, False, 8),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, True, 1),  # a batch script
    ],
)
def test_exactly_one_process_is_the_main_one(monkeypatch, environment, main, together):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is main and count_launched_processes() == together
    assert main_process_only(lambda: "spoke")() == ("spoke" if main else None)


def test_no_other_module_decides_which_process_is_the_main_one():
    """Lightning's own answers differ where there are several machines or launchers."""
    others = re.compile(r"rank_zero_only(?!=False)|is_global_zero")
    found = [p.name for p in (ROOT / "neuro_lightning").rglob("*.py") if others.search(p.read_text())]
    assert found == []
