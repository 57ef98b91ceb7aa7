"""Population-based training as a sweeper: each generation is a batch of jobs that any launcher runs.

A job trains one member until the next tournament and pauses there. Then the losers' next jobs start from the winners'
checkpoints. ``population.json`` in the sweep's folder is written after every generation; jobs know by their own
``run.json`` what they have done, so a sweep that was killed and resumed has the same result.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.records import read_record
from neuro_lightning.artifacts.studies import quiet_optuna
from neuro_lightning.artifacts.sweep_jobs import job_settings
from neuro_lightning.artifacts.sweep_progress import begin_generation, begin_progress
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.settings.quoting import override
from neuro_lightning.sweeps.base import BaseSweeper, has_ended, job_folder
from neuro_lightning.sweeps.population import Population, Values, has_settled, nearest
from neuro_lightning.sweeps.search.space import Space, read_space

if TYPE_CHECKING:
    from omegaconf import DictConfig

STATE_FILE = "population.json"
STARTS = ".population"  # folder of the checkpoints from which members start their next generation
BEST_CHECKPOINTS = "Checkpoint"  # the callback whose state says which checkpoint of a run's own folder is the best


@dataclass(frozen=True)
class Result:
    """What a member's job came to.

    Attributes:
        score: the monitored score at the end, turned so that more is better; minus infinity where it failed.
        epochs: trained in all.
        error: of a job that failed.
        last: the job's last checkpoint.
    """

    score: float
    epochs: int
    error: str
    last: Path


@dataclass
class State:
    """The population between two generations.

    Attributes:
        values: hyperparameters of each member.
        starts: for each member the generation whose checkpoint it starts from; None starts from new weights.
        best: the best score of each generation so far.
        over: why there is no further generation; None while there is one.
    """

    values: list[Values]
    starts: list[int | None]
    best: list[float | None] = field(default_factory=list)
    over: str | None = None


class PopulationSweeper(BaseSweeper):
    """Trains all members for a generation, lets the losers of a tournament copy the winners, and so on.

    Args:
        n_trials: members.
        seed: of all draws.
        params: the space, intervals in Hydra's grammar by key; the command line comes after it.
        generation_epochs: see :class:`~neuro_lightning.sweeps.population.Population`, as the other settings.
        burn_in_epochs: likewise.
        initial: likewise.
        width: likewise.
        patience: likewise.
        improvement: likewise.
    """

    def __init__(
        self, n_trials: int, seed: int, params: Mapping[str, Any] | None, generation_epochs: int, burn_in_epochs: int,
        initial: Mapping[str, float], width: Mapping[str, float], patience: int, improvement: float,
    ) -> None:  # fmt: skip
        self.n_trials, self.seed, self.params = n_trials, seed, params
        self.settings = Population(generation_epochs, burn_in_epochs, dict(initial), dict(width), patience, improvement)

    def propose(self, arguments: Sequence[str]) -> list[list[str]]:
        """The members' first jobs."""
        self.space = read_space(self.params, arguments)
        self.state = State(self._first_values(), [None] * self.n_trials)
        return [self.space.overrides(values) for values in self.state.values]

    def count_jobs(self, jobs: Sequence[Sequence[str]]) -> None:
        """Unknown, before it is known how many generations there may be; :meth:`run` counts them."""
        return None

    def open(self) -> None:
        """Check what members have in common, and read the state of an earlier attempt."""
        self.milestones = self._check_config()
        self.path, rules = self.folder / STATE_FILE, {**asdict(self.settings), "n_trials": self.n_trials}
        self.identity = {
            "fixed": job_settings(self.space.fixed), "space": self.space.written,
            "rules": str({**rules, "seed": self.seed}),
        }  # fmt: skip
        self.state = read_state(self.path, self.identity, self.space, self.n_trials) or self.state

    def run(self) -> None:
        """Train generation after generation."""
        begun = f" from generation {len(self.state.best) + 1}" if self.state.best else ""
        print(f"a population of {self.n_trials}{begun}; {self.config.monitor}", flush=True)
        done = self.n_trials * len(self.state.best)
        begin_progress(self.folder, self.n_trials * len(self.milestones), ended=done)
        while not self.state.over:
            self._train_generation()
            write_state(self.path, self.identity, self.state)
            self._delete_old_starts()
        self._finish()
        shutil.rmtree(self.folder / STARTS, ignore_errors=True)

    # ---- checks

    def _first_values(self) -> list[Values]:
        """The members' values at the start, drawn from the space.

        Raises:
            ConfigError: there is no population, or its space is not one of numbers.
        """
        import optuna

        if not isinstance(self.n_trials, int) or self.n_trials < 2:
            raise ConfigError(f"hydra.sweeper.n_trials={self.n_trials}: a population has 2 members or more")
        self.settings.check(self.space.searched)
        with quiet_optuna():
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed))
            drawn = [study.ask(self.space.searched).params for _ in range(self.n_trials)]
        rounded = [{key: nearest(value, self.space.searched[key]) for key, value in v.items()} for v in drawn]
        return [{key: self.settings.initial.get(key, value) for key, value in v.items()} for v in rounded]

    def _check_config(self) -> list[int]:
        """Check the members' config; returns the epochs after which they are compared."""
        config = self.loader.load_sweep_config(self.config, self.space.overrides(self.state.values[0]))
        epochs, every = config.trainer.max_epochs, config.trainer.check_val_every_n_epoch
        if epochs in (None, -1) or any(key.lstrip("+").startswith("trainer.max_") for key in self.space.searched):
            raise ConfigError("trainer.max_epochs: members are compared by their epochs; give one number for all")
        if not every:
            raise ConfigError("trainer.check_val_every_n_epoch: members are compared at validations; give a number")
        check_model(config)
        return self.settings.milestones(epochs, every)

    # ---- generations

    def _train_generation(self) -> None:
        """Train every member until the next milestone and hold the tournament."""
        number = len(self.state.best) + 1
        begin_generation(self.folder, self.n_trials * (number - 1), self.milestones[number - 1])
        results = self._launch(self.milestones[number - 1])
        scores = [result.score for result in results]
        trained = [math.isfinite(score) for score in scores]
        best = max(scores)
        self.state.best.append(best if math.isfinite(best) else None)
        taken: dict[int, int] = {}
        self.state.over = self._why_over(results)
        if not self.state.over:
            seed = f"{self.seed}, generation {number}"
            self.state.values, taken = self.settings.next_values(self.state.values, scores, self.space.searched, seed)
        for member in range(self.n_trials):
            donor = taken.get(member, member)
            if trained[donor]:
                merge_checkpoint_state(results[donor].last, results[member].last, self._start_file(member, number))
                self.state.starts[member] = number
        self._show(results, taken)

    def _launch(self, until: int, *more: str) -> list[Result]:
        """Run every member's job until an epoch; a job that has been there already ends at once."""
        jobs = []
        for member, (values, start) in enumerate(zip(self.state.values, self.state.starts, strict=True)):
            words = [*self.space.overrides(values), f"sweep.trial={member}", f"sweep.until={until}", *more]
            if start is not None:
                words.append(override("resume", self._start_file(member, start)))
            jobs.append(words)
        return [read_result(returned, until) for returned in self.launcher.launch(jobs, initial_job_idx=0)]

    def _start_file(self, member: int, generation: int) -> Path:
        return self.folder / STARTS / f"{member}_{generation}.ckpt"

    def _why_over(self, results: Sequence[Result]) -> str | None:
        if self.state.best[-1] is None:
            return "every member failed"
        if max(result.epochs for result in results) >= self.milestones[-1]:
            return f"all {self.milestones[-1]} epochs are done"
        best = [-math.inf if score is None else score for score in self.state.best]
        if has_settled(best, self.settings.patience, self.settings.improvement):
            return f"the best has not improved over {self.settings.patience} generations"
        return None

    def _delete_old_starts(self) -> None:
        kept = {self._start_file(i, start) for i, start in enumerate(self.state.starts) if start is not None}
        for path in (self.folder / STARTS).glob("*.ckpt"):
            if path not in kept:
                path.unlink()

    def _finish(self) -> None:
        """Score the members' best checkpoints, where the training ended before all its epochs were done.

        Raises:
            ConfigError: every member failed.
        """
        if self.state.best[-1] is None:
            raise ConfigError("every member failed: their errors are in sweep.md")
        until = self.milestones[len(self.state.best) - 1]
        if until < self.milestones[-1]:
            begin_progress(self.folder, self.n_trials * len(self.state.best))  # there will be no more generations
            begin_generation(self.folder, self.n_trials * (len(self.state.best) - 1), until)
            self._launch(until, f"trainer.max_epochs={until}")

    def _show(self, results: Sequence[Result], taken: Mapping[int, int]) -> None:
        """Print a generation's best and median score, who failed and who took over from whom."""
        sign = 1 if self.config.mode == "max" else -1
        scores = [result.score for result in results]
        best = scores.index(max(scores))
        epoch = max(result.epochs for result in results)
        words = [
            f"generation {len(self.state.best):>2}  epoch {epoch:>{len(str(self.milestones[-1]))}}",
            f"best {sign * scores[best]:.4f} (trial {best})  median {sign * statistics.median(scores):.4f}",
        ]
        failed = [(member, result) for member, result in enumerate(results) if not math.isfinite(result.score)]
        if failed:
            words.append(f"failed {', '.join(str(member) for member, _ in failed)}")
        if taken:
            words.append("copied: " + ", ".join(f"{loser} from {winner}" for loser, winner in sorted(taken.items())))
        print("  ".join(words), flush=True)
        for member, result in failed:
            print(f"  trial {member}: {result.error}", flush=True)
        if self.state.over:
            print(f"{self.state.over}: the training ends", flush=True)


def check_model(config: DictConfig) -> None:
    """Check that a population can train a model.

    Raises:
        ConfigError: it has no optimizer, or something else changes its learning rate or its epochs.
    """
    if "optimizer" not in config.model:
        raise ConfigError("population-based training needs a model with an optimizer; this one has none")
    if config.model.get("scheduler"):
        raise ConfigError(
            "population-based training changes the learning rate itself: give scheduler@model.scheduler=none"
        )
    for name, node in (config.callbacks or {}).items():
        if node and str(node.get("_target_")).endswith(".EarlyStopping"):
            raise ConfigError(f"callbacks.{name}: members train for equally many epochs; give ~callbacks.{name}")


def read_result(returned: Any, until: int) -> Result:
    """What a job came to, by its ``run.json``.

    Args:
        returned: Hydra's ``JobReturn``.
        until: the epoch to which it was to train.

    Raises:
        ConfigError: it has not ended.
    """
    if not has_ended(returned):
        _ = returned.return_value  # raises what the job raised
    folder = job_folder(returned)
    record = read_record(folder)
    status, objective = str(record.get("status")), record.get("objective") or {}
    epochs, error = (record.get("checkpoints") or {}).get("epochs") or 0, record.get("error") or ""
    if status not in ("paused", "finished", "failed", "diverged"):
        raise ConfigError(f"{folder.name} is {status}: resume with sweep.resume={folder.parent}")
    score = objective.get("end") if status in ("paused", "finished") and epochs >= until else None
    if score is None:
        error = error or f"it ended before epoch {until}; see {folder.name}/output.log"
    sign = 1.0 if objective.get("mode") == "max" else -1.0
    value = -math.inf if score is None or not math.isfinite(score) else sign * float(score)
    return Result(value, epochs, " ".join(error.split()), folder / "checkpoints" / "last.ckpt")


def merge_checkpoint_state(donor: Path, own: Path, path: Path) -> None:
    """Write the donor's checkpoint with a run's own state of its best checkpoints.

    Weights, optimizer, epochs and random states are the donor's. But ``best.ckpt`` in a run's folder is the best that
    was trained in this folder, and a run must not take the donor's file for its own.

    Args:
        donor: the checkpoint whose weights are copied.
        own: the run's own last checkpoint, which may not exist.
        path: where the new checkpoint is written.
    """
    import torch

    from neuro_lightning.models.loading import read_checkpoint

    content = read_checkpoint(donor)
    mine = read_checkpoint(own)["callbacks"] if own.is_file() else {}
    others = {key: state for key, state in content["callbacks"].items() if not key.startswith(BEST_CHECKPOINTS)}
    content["callbacks"] = others | {key: state for key, state in mine.items() if key.startswith(BEST_CHECKPOINTS)}
    with atomic_path(path, durable=True) as part:
        torch.save(content, part)


# ---- the state on disk


def write_state(path: Path, identity: Mapping[str, Any], state: State) -> None:
    """Write ``population.json`` in one piece."""
    with atomic_path(path, durable=True) as part:
        part.write_text(json.dumps({"of": dict(identity), **asdict(state)}, indent=1))


def read_state(path: Path, identity: Mapping[str, Any], space: Space, members: int) -> State | None:
    """The state of a population that was interrupted; None where there is none.

    Raises:
        ConfigError: the file is of another search.
        DataError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        of = found.pop("of")
        state = State(**found)
        whole = all(start is None or type(start) is int for start in state.starts)
        whole &= len(state.values) == len(state.starts) == members or of != identity
        whole &= all(score is None or type(score) is float for score in state.best)
        whole &= bool(state.best) and isinstance(state.over, str | None)
        for values in state.values if of == identity else ():  # they become words of a command line
            whole &= values.keys() == space.searched.keys()
            whole &= all(type(value) in (int, float) and math.isfinite(value) for value in values.values())
        if not whole:
            raise ValueError("its values are of another kind")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}): begin a new sweep in another folder") from None
    if of != identity:
        raise ConfigError(
            f"{path.parent} holds another population: resume it by sweep.resume=DIR alone, or give this one a "
            "folder of its own (hydra.sweep.dir=...)"
        )
    return state
