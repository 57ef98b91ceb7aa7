"""From a run to the files of its network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.artifacts.checkpoint_files import run_folder
from neuro_lightning.errors import ConfigError
from neuro_lightning.export.files import describe, write
from neuro_lightning.export.function import step_function, trial_function
from neuro_lightning.models.loading import choose_checkpoint, load_checkpoint
from neuro_lightning.realtime.from_data import fit_decoder
from neuro_lightning.realtime.stream import check_streams
from neuro_lightning.runs.prediction import data_for_checkpoint


def export(
    run: Path,
    *,
    to: str = "onnx",
    trial: bool = False,
    behavior: bool = False,
    batch: int = 1,
    session: str | None = None,
    checkpoint: str = "auto",
    trusted: Sequence[str] = (),
    out: Path | None = None,
) -> tuple[Path, Path]:
    """Write the network of a run and its description.

    Args:
        run: its folder, or a checkpoint.
        to: ``onnx`` or ``torch``.
        trial: the network of whole trials, not that of single bins.
        behavior: with the decoder of behavior, fitted to the run's training trials.
        batch: trials side by side.
        session: which of several recordings.
        checkpoint: ``auto``, ``best``, ``refit`` or ``last``.
        trusted: packages of your own that the checkpoint may build from.
        out: the folder; None is ``export`` in the run's.

    Returns:
        The network's file and the description's.

    Raises:
        ConfigError: the network looks ahead, is not of spikes, or is none that ONNX can hold.
    """
    if batch < 1:
        raise ConfigError(f"--batch {batch}: at least one trial")
    path = choose_checkpoint(run, checkpoint, "test")
    saved = load_checkpoint(path, trusted=list(trusted))
    saved = saved.of_session(session) if session is not None else saved
    net, spec = saved.model.net.eval().requires_grad_(False), saved.spec
    if trial and (spec.kind != "spikes" or spec.sessions):
        check_streams(net, spec)  # says what is wrong
    steps = None if trial else check_streams(net, spec)
    decoder = fit_decoder(net, spec, data_for_checkpoint(saved, {}, trusted)) if behavior else None
    if steps is None:
        function, longest, checked = trial_function(net, spec, decoder, batch), spec.n_bins, 2
    else:
        function, longest = step_function(steps, spec, decoder, batch), steps.longest
        checked = longest
    folder = out or run_folder(path) / "export"
    name = ("trial" if trial else "step") + (f"_{session}" if session else "")
    file = write(function, to, folder / name, checked)
    more = {
        "model": type(saved.model).__name__,
        "longest_trial": longest,
        "lag_bins": 0 if steps is None else steps.lag,
    }
    return file, describe(function, spec, file, path, **more)
