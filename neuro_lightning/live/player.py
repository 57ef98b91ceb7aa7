"""Plays a recording: each bin is sent when it would be over in the experiment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np

from neuro_lightning.data.recording import Trials, padding
from neuro_lightning.errors import ConfigError
from neuro_lightning.live.protocol import END, NOTHING, Message, pack

WAIT_MS = 60_000
"""How long somebody who listens is waited for."""
LINGER_MS = 5000
"""How long what was sent may take to be on its way when the player ends."""


def bins_of(trials: Trials, behavior: bool) -> Iterator[Message]:
    """The bins of trials, one trial after the other, until each one's end; their times are still to come.

    Args:
        trials: of a split.
        behavior: with the behavior of each bin.
    """
    n_in = trials.heldin.shape[2]
    for trial, counts in enumerate(trials.heldin):
        shown, length = counts.astype(np.float32), len(counts)
        if trials.observed is not None:
            there = trials.observed[trial]
            shown = np.where(there[:, :n_in], shown, np.nan)
            length -= int(padding(there[None]).sum())
        for number in range(length):
            measured = trials.behavior[trial, number] if behavior else NOTHING
            yield Message(trial, number, 0.0, shown[number], measured)


def play(
    bins: Iterable[Message], address: str, *, bin_ms: float, speed: float = 1.0, lose: float = 0.0, seed: int = 0
) -> int:
    """Send bins to an address, the first when somebody listens there.

    Bin k of the recording is sent k bin widths after the first: a bin that is sent late makes no later one late. Where
    the listener's queue is full a bin is lost: an experiment does not wait.

    Args:
        bins: of the recording.
        address: where somebody listens, such as ``tcp://127.0.0.1:5555``.
        bin_ms: bin width in ms.
        speed: how many times faster than in the experiment.
        lose: share of the bins that is not sent.
        seed: of the choice of these.

    Returns:
        How many bins were lost, on purpose and otherwise.

    Raises:
        ConfigError: nobody listens there.
    """
    import zmq

    lost, draw, width = 0, np.random.default_rng(seed), bin_ms / 1000 / speed
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.IMMEDIATE, 1)  # a queue for listeners alone, not for whoever may come
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.connect(address)
        if not socket.poll(WAIT_MS, zmq.POLLOUT):
            raise ConfigError(f"nobody listens at {address}; start python -m neuro_lightning.live RUN --listen ADDRESS")
        start = time.perf_counter()
        for number, message in enumerate(bins, start=1):
            due = start + number * width
            time.sleep(max(0.0, due - time.perf_counter()))
            over = time.time() - (time.perf_counter() - due)
            try:
                if draw.random() < lose:
                    raise zmq.Again
                socket.send(pack(message._replace(time=over)), zmq.NOBLOCK)
            except zmq.Again:
                lost += 1
        if socket.poll(LINGER_MS, zmq.POLLOUT):
            socket.send(pack(END))
    return lost
