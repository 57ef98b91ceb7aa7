"""``predict.py`` on IBL BrainWideBench: the submission's tree of files, and the scores of what was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.artifacts.checkpoint_files import run_folder
from neuro_lightning.artifacts.lines import say
from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.bwb.reader import open_session
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.predictions import print_scores
from neuro_lightning.display.table import kind_of, number, relative
from neuro_lightning.ensemble.compatibility import check_members, check_same_data
from neuro_lightning.errors import ConfigError
from neuro_lightning.metrics.session_scores import with_means
from neuro_lightning.models.loading import choose_checkpoint, load_checkpoint
from neuro_lightning.runs.prediction import pick_device
from neuro_lightning.settings.settings import PredictSettings
from neuro_lightning.submission.bwb import HALF_COST, check_seed, prediction_file, write_session

DATASET = "bwb"


def is_benchmark(spec: DataSpec) -> bool:
    """Whether all sessions are of the benchmark."""
    return all(part.dataset == DATASET for part in spec.parts)


def write_benchmark_submission(settings: PredictSettings, members: Sequence[Path], data: PopulationDataModule) -> Path:
    """Write the predictions of one checkpoint, or the mean of several, for the test windows of each session.

    Args:
        settings: of ``predict.py``.
        members: checkpoints.
        data: of the benchmark.

    Returns:
        The folder ``predictions``.

    Raises:
        NeuroError: with one line that says what to mend.
    """
    _check(settings)
    paths = [choose_checkpoint(path, settings.checkpoint, "test") for path in members]
    saved = [load_checkpoint(path, trusted=settings.trusted) for path in paths]
    seed = _seed(saved[0].path)
    if line := check_seed(seed):
        say(f"WARNING: {line}")
    base = Path(settings.file) if settings.file else run_folder(saved[0].path) / "predictions"
    label, scores = settings.label or type(saved[0].model).__name__.lower(), {}
    parts = {session: (part, part.recording.info) for session, part in data.by_session().items()}
    for _, info in parts.values():
        target = prediction_file(base, label, info["task"], info["bwb_session"], seed)
        if target.exists() and not settings.overwrite:
            raise ConfigError(
                f"{target} is there already: give overwrite=true to replace it, or file=FOLDER or label=NAME"
            )
    for session, (part, info) in parts.items():
        own = [one.of_session(settings.session or session) for one in saved]
        if len(own) > 1:
            check_members(paths, part, settings.session or session)
        for one in own:
            check_same_data(one, part.spec, "the checkpoint's data")
        bench = open_session(part.recording.sources[0]["path"])
        written = write_session(
            [one.model.net for one in own], bench, info["task"], part.spec, base, label=label, seed=seed,
            device=pick_device(settings.device), batch_size=part.eval_batch_size,
            ground_truth=base.parent / "ground_truth" / "ts2" if settings.ground_truth else None,
        )  # fmt: skip
        scores[session] = written.scores
        print(f"written     {relative(written.path)}: {written.n_windows:,} windows")
        if abs(written.half_cost) > HALF_COST * abs(written.scores["poisson_d2"]):
            print(f"WARNING: half precision costs {number(written.half_cost)} of D2")
    if settings.evaluate:
        title = f"{data.recording.name} ({kind_of(data.recording)}), test windows at every bin"
        print_scores({"test": with_means(scores) if data.spec.sessions else scores[""]}, title)
    if settings.ground_truth:
        folder = relative(base.parent / "ground_truth" / "ts2")
        print(f"score it    python -m ibl_bwb_eval.scoring.ts2 --pred_dir {relative(base / label)} --gt_dir {folder}")
    return base


def _check(settings: PredictSettings) -> None:
    """Refuse settings that such a submission has no place for."""
    for name, usual in (("ensemble", "mean"), ("space", "rate"), ("merge_into", None), ("log", False)):
        if (value := getattr(settings, name)) != usual:
            raise ConfigError(f"{name}={value}: a submission to BrainWideBench cannot have it; leave it out")


def _seed(checkpoint: Path) -> int:
    """The seed of the run that a checkpoint is of."""
    folder = run_folder(checkpoint)
    if not (folder / FILE_NAME).is_file():
        raise ConfigError(f"{checkpoint}: its run's {FILE_NAME} is not there, and the file's name needs the seed")
    return int(read_record(folder)["config"]["seed"])
