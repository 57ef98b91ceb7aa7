"""Sends counts to ``python -m neuro_lightning.live RUN --listen tcp://*:5555``. It needs pyzmq and NumPy.

python send_counts.py tcp://127.0.0.1:5555 counts.npy 20      # (T, N_in) counts of a trial, in bins of 20 ms
"""

import struct
import sys
import time

import numpy as np
import zmq

address, counts, bin_ms = sys.argv[1], np.load(sys.argv[2]).astype("<f4"), float(sys.argv[3])
with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
    socket.setsockopt(zmq.LINGER, 5000)  # ms that the last bins may take to be on their way
    socket.connect(address)
    start = time.perf_counter()
    for number, bin_counts in enumerate(counts):
        time.sleep(max(0, start + (number + 1) * bin_ms / 1000 - time.perf_counter()))
        trial = 0  # the next trial has a higher number, and its bins begin with 0 again
        socket.send(struct.pack("<iid", trial, number, time.time()) + bin_counts.tobytes())
    socket.send(struct.pack("<iid", -1, 0, 0.0))  # no more will come
