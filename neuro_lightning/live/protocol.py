"""The message of a bin.

One ZeroMQ message a bin, of one frame, little-endian, without padding::

    int32     trial      number of the trial, never lower than before
    int32     bin        number of the bin in its trial, from 0
    float64   time       when the bin was over, seconds since 1970 (UTC)
    float32   counts     N_in spikes, in the order of unit_ids; NaN where a neuron was not recorded
    float32   behavior   K values that were measured, or nothing; they are drawn, and enter no model

A message without counts whose trial is -1 says that no more will come.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from neuro_lightning.errors import DataError

HEADER = struct.Struct("<iid")


class Message(NamedTuple):
    """A bin as it is sent.

    Attributes:
        trial: number of the trial; -1 says that no more will come.
        number: of the bin in its trial, from 0.
        time: when the bin was over, seconds since 1970 (UTC).
        counts: (N_in,) spikes, NaN where a neuron was not recorded.
        behavior: (K,) measured values; empty for none.
    """

    trial: int
    number: int
    time: float
    counts: np.ndarray
    behavior: np.ndarray


NOTHING = np.zeros(0, np.float32)
END = Message(-1, 0, 0.0, NOTHING, NOTHING)


def pack(message: Message) -> bytes:
    """The bytes of a message.

    Example:
        >>> len(pack(Message(0, 7, 0.0, np.zeros(5), np.zeros(2))))
        44
    """
    values = np.concatenate([message.counts, message.behavior]).astype("<f4")
    return HEADER.pack(message.trial, message.number, message.time) + values.tobytes()


def unpack(data: bytes, n_in: int) -> Message:
    """The message that bytes are of.

    Args:
        data: as received.
        n_in: neurons N_in whose counts each bin has.

    Raises:
        DataError: there are fewer counts, or the bytes are no such message.
    """
    size = len(data) - HEADER.size
    trial, number, time = HEADER.unpack_from(data) if size >= 0 else (0, 0, 0.0)
    if trial == END.trial and size == 0:
        return END
    if size < 4 * n_in or size % 4 or trial < 0 or number < 0:
        raise DataError(
            f"a message of {len(data)} bytes, trial {trial}, bin {number}: one of {n_in} neurons has int32 trial and "
            f"bin from 0, float64 time and {n_in} float32 counts, {HEADER.size + 4 * n_in} bytes or more"
        )
    values = np.frombuffer(data, "<f4", offset=HEADER.size)
    return Message(trial, number, time, values[:n_in], values[n_in:])
