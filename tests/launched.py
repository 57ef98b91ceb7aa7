"""What jobs tell of the place where a launcher has put them."""

import json
import os
import signal
from pathlib import Path

import pytorch_lightning as pl
import torch
from tiny import Tiny

from neuro_lightning.data.recording import Recording


class Place(pl.Callback):
    """Leaves ``place.json`` in the run's folder."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        place = {"pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "cwd": os.getcwd()}
        place |= {"threads": torch.get_num_threads(), "wait": os.environ.get("OMP_WAIT_POLICY")}
        Path(trainer.default_root_dir, "place.json").write_text(json.dumps(place))


class KillOnce(Place):
    """Ends the process at once after a step, as the system does when memory is short; of one run only, and once.

    Args:
        step: after which.
        seed: of the run.
    """

    def __init__(self, step: int, seed: int) -> None:
        self.step, self.seed = step, seed

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        flag = Path(trainer.default_root_dir, "killed")
        ours = json.loads(Path(trainer.default_root_dir, "run.json").read_text())["seed"] == self.seed
        if trainer.global_step == self.step and ours and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Counted(Tiny):
    """The tiny recording; every reading of it is a line in ``loads.txt`` of the folder the command is started from."""

    def load(self) -> Recording:
        with open("loads.txt", "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().load()
