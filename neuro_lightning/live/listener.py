"""Listens to bins on a socket, streams them through a model, and keeps what is drawn in the end."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from neuro_lightning.live.protocol import END, Message, unpack
from neuro_lightning.realtime.stream import Bin, Stream

KEPT = 30_000
"""Bins whose counts and answers are kept, the last ones; of all others only how long they took."""
LOOKS_MS = 200
"""How often it is asked whether the sender still lives."""


class Answer(NamedTuple):
    """A bin that was received, and what the model said.

    Attributes:
        message: as received.
        said: what the model said then, about the bin that is ``lag`` bins earlier.
    """

    message: Message
    said: Bin


class Trial(NamedTuple):
    """What is drawn of a trial; NaN where a bin never came, or nothing was said of it.

    Attributes:
        number: of the trial.
        counts: (T, N_in).
        rates: (T, N) spikes per bin.
        decoded: (T, K); None without a decoder.
        behavior: (T, K) as measured; None where none was sent.
    """

    number: int
    counts: np.ndarray
    rates: np.ndarray
    decoded: np.ndarray | None
    behavior: np.ndarray | None


class Log:
    """What has come and what was said of it.

    Attributes:
        answers: the last bins.
        latency: seconds from the end of each bin to the answer, by the clocks of sender and listener.
        computing: seconds of these that the model took.
    """

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque(maxlen=KEPT)
        self.latency: list[float] = []
        self.computing: list[float] = []

    def trials(self, lag: int = 0) -> list[Trial]:
        """The trials of the last bins, in their order; a trial's first bins may be gone.

        Args:
            lag: bins by which the model's answers are late.
        """
        by_trial: dict[int, list[Answer]] = {}
        for answer in self.answers:
            by_trial.setdefault(answer.message.trial, []).append(answer)
        cut = self.answers[0] if len(self.answers) == KEPT else None
        return [
            _arrays(number, answers, lag, answers[0].message.number if answers[0] is cut else 0)
            for number, answers in by_trial.items()
        ]


def _arrays(trial: int, answers: list[Answer], lag: int, first: int) -> Trial:
    """The arrays of one trial from its bin ``first`` on: bins that never came have their place."""
    last = answers[-1].message.number

    def filled(values: list[np.ndarray], late: int) -> np.ndarray:
        array = np.full((last + 1 - first, len(values[0])), np.nan, np.float32)
        for value, answer in zip(values, answers, strict=True):
            if answer.message.number - late >= first:
                array[answer.message.number - late - first] = value
        return array

    said = [answer.said for answer in answers]
    decoded = None if said[0].behavior is None else filled([one.behavior for one in said], lag)
    measured = [answer.message.behavior for answer in answers]
    return Trial(
        trial,
        filled([answer.message.counts for answer in answers], 0),
        filled([one.rates for one in said], lag),
        decoded,
        filled(measured, 0) if {one.size for one in measured} == {measured[0].size} != {0} else None,
    )


@contextmanager
def listening(address: str) -> Iterator[tuple[Any, str]]:
    """A socket that bins are sent to, and its address; ``tcp://127.0.0.1:*`` takes a port that is free."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(address)
        yield socket, socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def listen(stream: Stream, socket: Any, log: Log, go_on: Callable[[], bool] = lambda: True) -> None:
    """Stream the bins that come to a socket, until the sender says that no more will come.

    A trial with a higher number begins anew. Bins that are late, missing or double are treated as by
    :meth:`~neuro_lightning.realtime.stream.Stream.step`; one of a trial that is over comes too late. Python's garbage
    collector rests.

    Args:
        stream: of the model.
        socket: see :func:`listening`.
        log: is written.
        go_on: whether to wait for more when nothing has come for a while.

    Raises:
        DataError: a message that cannot be read, or a bin that the stream cannot take.
    """
    trial = None
    gc.disable()
    try:
        while True:
            if not socket.poll(LOOKS_MS):
                if not go_on():
                    return
                continue
            message = unpack(socket.recv(), stream.spec.n_in)
            if message is END:
                return
            if trial is None or message.trial > trial:
                stream.reset()
                trial = message.trial
            _answer(stream, message, log, late=message.trial < trial)
    finally:
        gc.enable()


def _answer(stream: Stream, message: Message, log: Log, *, late: bool) -> None:
    """One bin through the model; a bin that is dropped leaves no trace in the log."""
    dropped, began = stream.dropped, time.perf_counter()
    if late:
        stream.dropped += 1
        return
    said = stream.step(message.counts, number=message.number)
    took, now = time.perf_counter() - began, time.time()
    if stream.dropped == dropped:
        log.computing.append(took)
        log.latency.append(now - message.time)
        log.answers.append(Answer(message, said))
