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
    """Ends the process at once, as the system does when memory is short; at each of some points once.

    Args:
        points: pairs of a run's seed and the step after which it is killed; "end" is after its training.
    """

    def __init__(self, points: list[list]) -> None:
        self.points = points

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        self._kill(trainer, trainer.global_step)

    def on_fit_end(self, trainer: pl.Trainer, *_) -> None:
        self._kill(trainer, "end")

    def _kill(self, trainer: pl.Trainer, moment: int | str) -> None:
        flag = Path(trainer.default_root_dir, f"killed-{moment}")
        seed = json.loads(Path(trainer.default_root_dir, "run.json").read_text())["seed"]
        if [seed, moment] in self.points and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Counted(Tiny):
    """The tiny recording; every reading of it is a line in ``loads.txt`` of the folder the command is started from."""

    def load(self) -> Recording:
        with open("loads.txt", "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().load()
