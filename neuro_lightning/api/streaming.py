"""A trained model, one bin at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuro_lightning.api.results import Run
from neuro_lightning.functional.drift import Drift
from neuro_lightning.models.loading import choose_checkpoint, load_checkpoint
from neuro_lightning.realtime.from_data import fit_decoder, usual_of
from neuro_lightning.realtime.stream import Stream, check_streams
from neuro_lightning.runs.prediction import data_for_checkpoint


def stream(
    run: Run | str | Path,
    *,
    behavior: bool = False,
    drift: int | None = None,
    session: str | None = None,
    checkpoint: str = "auto",
    trusted: Sequence[str] = (),
) -> Stream:
    """A trained model that is given one bin after the other.

    What it says of a bin is what the model says of it when it is given the whole trial. Models that look ahead are
    refused with the words that make them causal; ``experiment=causal`` trains one that does not.

    Args:
        run: a run, its folder, or a checkpoint. Of a run with a refit it is the refit: new trials validated nothing.
        behavior: decode behavior too, by the ridge regression that ``vel R2`` scores. It is fitted to the run's
            training trials, whose files must still be there.
        drift: watch over so many of the last bins whether the neurons still fire as the model says, compared with the
            run's validation trials: ``stream.drift.score``, in standard deviations, is beyond about 4, above or below
            0, when it is time to adapt.
        session: which of several recordings.
        checkpoint: ``auto``, ``best``, ``refit`` or ``last``.
        trusted: packages of your own that the checkpoint may build from.

    Raises:
        NeuroError: with one line that says what to mend.

    Example:
        >>> stream = nl.stream("outputs/nwb/gru/2026-01-31_12-00-00")  # doctest: +SKIP
        >>> rates, latents, _ = stream.step(counts)                    # (N_in,) counts of a bin  # doctest: +SKIP
    """
    path, session = (run.folder, session or run.session) if isinstance(run, Run) else (run, session)
    saved = load_checkpoint(choose_checkpoint(path, checkpoint, "test"), trusted=list(trusted))
    if session is not None:
        saved = saved.of_session(session)
    net = check_streams(saved.model.net, saved.spec)
    data = data_for_checkpoint(saved, {}, trusted) if behavior or drift else None
    decoder = fit_decoder(net, saved.spec, data) if behavior else None
    return Stream(net, saved.spec, decoder, Drift(usual_of(net, saved.spec, data), drift) if drift else None)
