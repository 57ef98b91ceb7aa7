"""The command line: plays, listens, or does both in two processes."""

from __future__ import annotations

import argparse
import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.api.streaming import stream as stream_of
from neuro_lightning.artifacts.checkpoint_files import run_folder
from neuro_lightning.display.figures_live import stream_figure
from neuro_lightning.display.table import number, print_table, relative
from neuro_lightning.errors import ConfigError, errors_in_one_line
from neuro_lightning.live.listener import Log, listen, listening
from neuro_lightning.live.player import bins_of, play
from neuro_lightning.models.loading import Saved, choose_checkpoint, load_checkpoint
from neuro_lightning.realtime.stream import Stream, check_streams
from neuro_lightning.runs.prediction import data_for_checkpoint

ANY_PORT = "tcp://127.0.0.1:*"
ENDS_S = 10
"""How long the player may take to end after its last bin."""


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = _parser().parse_args(arguments)
    if find_spec("zmq") is None:
        raise ConfigError("a socket needs pyzmq: pip install 'neuro_lightning[live]'")
    if not (given.speed > 0 and 0 <= given.lose < 1):
        raise ConfigError(f"--speed {given.speed:g} must be above 0, and --lose {given.lose:g} a share below 1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have turned it off for its background jobs
    torch.set_num_threads(1)
    saved = load_checkpoint(choose_checkpoint(given.run, given.checkpoint, "test"), trusted=given.trusted)
    saved = saved if given.session is None else saved.of_session(given.session)
    check_streams(saved.model.net, saved.spec)
    if given.play:
        play_run(saved, given)
    else:
        stream_run(saved, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.live",
        description="Plays a recording over a socket in real time, streams it through a causal model, and draws how "
        "long bins took and what was said. Ctrl-C ends it earlier.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint")
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--listen", metavar="ADDRESS", help="only listen, to your own sender: tcp://*:5555")
    half.add_argument("--play", metavar="ADDRESS", help="only play, to who listens there: tcp://127.0.0.1:5555")
    parser.add_argument("--split", default="val", help="which trials are played: train, val or test")
    parser.add_argument("--path", help="another recording of the same neurons is played")
    parser.add_argument("--speed", type=float, default=1.0, help="times faster than in the experiment")
    parser.add_argument("--lose", type=float, default=0.0, help="share of the bins that is not sent")
    parser.add_argument("--session", help="which of several recordings")
    parser.add_argument("--checkpoint", default="auto", help="auto, best, refit or last")
    parser.add_argument("--trusted", nargs="*", default=[], help="packages of your own that the run builds from")
    parser.add_argument("--out", type=Path, help="the figure; figures/live.png in the run's folder when left out")
    return parser


def play_run(saved: Saved, given: argparse.Namespace) -> None:
    """Play the trials of a run, or of another recording of its neurons.

    Raises:
        ConfigError: there is no such split.
    """
    data = data_for_checkpoint(saved, {"path": given.path}, given.trusted)
    splits = data.recording.splits
    if given.split not in splits:
        raise ConfigError(f"--split {given.split}: these data have {', '.join(splits)}")
    trials = splits[given.split]
    behavior = trials.behavior is not None and trials.behavior.ndim == 3
    print(f"playing     {len(trials)} trials of {saved.spec.dataset}", flush=True)
    try:
        lost = play(bins_of(trials, behavior), given.play, bin_ms=saved.spec.bin_ms, speed=given.speed, lose=given.lose)
    except KeyboardInterrupt:
        return
    print(f"played      {len(trials)} trials; {lost} bins were not sent")


def stream_run(saved: Saved, given: argparse.Namespace) -> None:
    """Stream what comes, from a player that is started or from elsewhere, and draw it in the end, however it ends."""
    spec, log = saved.spec, Log()
    bins = spec.behavior_kind == "velocity" and spec.decode_groups == 1
    decodes = bins and getattr(saved.model.net, "heads", None) is None  # a head of the network needs no regression
    stream = stream_of(saved.path, behavior=decodes, session=given.session, trusted=given.trusted)
    out = given.out or run_folder(saved.path) / "figures" / "live.png"
    gc.collect()  # takes longer than bins, so that it is done before the first one can come
    try:
        with listening(given.listen or ANY_PORT) as (socket, address):
            print(f"listening   {address}, {spec.n_in} neurons in bins of {spec.bin_ms:g} ms; Ctrl-C ends", flush=True)
            with nobody() if given.listen else player(given, address) as lives:
                listen(stream, socket, log, lives)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        if log.answers:
            show(stream, log, out)


@contextmanager
def nobody() -> Iterator[Callable[[], bool]]:
    """The sender is somebody else's: it is waited for."""
    yield lambda: True


@contextmanager
def player(given: argparse.Namespace, address: str) -> Iterator[Callable[[], bool]]:
    """A process that plays to an address; whether it lives. It ends with the block.

    Raises:
        ConfigError: it has failed; it has printed why.
    """
    words = [str(given.run), "--play", address]
    for name in ("split", "path", "speed", "lose", "session", "checkpoint"):
        if (value := getattr(given, name)) is not None:
            words += [f"--{name}", str(value)]
    words += ["--trusted", *given.trusted]
    # Ctrl-C reaches this process alone, which ends the other
    process = subprocess.Popen([sys.executable, "-m", "neuro_lightning.live", *words], start_new_session=True)
    try:
        yield lambda: process.poll() is None
        if process.wait(ENDS_S):
            raise ConfigError("the process that plays has ended early; the line above says why")
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.terminate()
        process.wait()


def show(stream: Stream, log: Log, out: Path) -> None:
    """Print what has come, and draw it."""
    latency, computing = (1000 * np.array(seconds) for seconds in (log.latency, log.computing))
    rows = [
        [name, *(number(float(value), 2) for value in np.percentile(values, (50, 99, 99.9, 100)))]
        for name, values in (("from a bin's end to the answer", latency), ("the model alone", computing))
    ]
    title = f"{len(latency)} bins; {stream.missing} never came, {stream.dropped} came twice or too late"
    print_table(title, ["ms", "p50", "p99", "p99.9", "worst"], rows)
    spec = stream.spec
    figure = stream_figure(
        log.trials(stream.lag), latency, computing, bin_ms=spec.bin_ms, simulated=spec.simulated,
        title=f"Real time: {type(stream.network).__name__.removesuffix('Net')} on {spec.dataset}",
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    print(f"written     {relative(out)}")
