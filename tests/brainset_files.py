"""Small brainsets files with awkward corners, written by temporaldata."""

import h5py
import numpy as np
import temporaldata as td

N_UNITS, N_TRIALS = 8, 24
PAUSE = (7.0, 9.0)  # the recording has a gap
END = 13.05  # within the last trial
ONCE, SILENT = 3, 5  # a unit of one spike, and one of none
IDS = np.array([f"probe{k // 4}/unit {k}" for k in range(N_UNITS)])
DOMAIN = td.Interval(start=np.array([0.0, PAUSE[1]]), end=np.array([PAUSE[0], END]))
STARTS = np.round(np.arange(N_TRIALS) * 0.55 + 0.013, 3)


def spike_times(seed=0, n_units=N_UNITS):
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.uniform(0, END, 150)).round(4) + 2e-5 for _ in range(n_units)]
    times = [t[(t < PAUSE[0]) | (t > PAUSE[1])] for t in times]
    return [t[:1] if k == ONCE else t[:0] if k == SILENT else t for k, t in enumerate(times)]


def spikes_of(times, domain=DOMAIN, **more):
    joined, unit = np.concatenate(times), np.repeat(np.arange(len(times)), [len(t) for t in times])
    order = np.argsort(joined, kind="stable")
    more = {name: values[order] for name, values in more.items()}
    return td.IrregularTimeSeries(timestamps=joined[order], unit_index=unit[order], domain=domain, **more)


def parts(seed=0):
    """The objects of a file by name."""
    times = spike_times(seed)
    cue = STARTS + 0.1
    cue[2] = np.nan
    n_wheel = round(10.0 * 50)  # the wheel ends early
    wheel = np.random.default_rng(9).standard_normal((n_wheel, 2)).cumsum(0)
    t = np.arange(0.0, END, 0.01)
    t = t[(t < PAUSE[0]) | (t >= PAUSE[1])]
    return {
        "brainset": td.Data(id="awkward", derived_version="1.0.0"),
        "session": td.Data(id=f"session_{seed}", recording_date="2020-01-01"),
        "subject": td.Data(id="mouse"),
        "units": td.ArrayDict(id=IDS, firing_rate=np.arange(N_UNITS) / 2, good=np.arange(N_UNITS) % 2 == 0,
                              waveform=np.zeros((N_UNITS, 3, 4))),
        "spikes": spikes_of(times, amplitude=np.ones(sum(map(len, times)))),
        "trials": td.Interval(
            start=STARTS, end=STARTS + 0.5, timekeys=["start", "end", "cue_time"], cue_time=cue,
            choice=np.where(np.arange(N_TRIALS) % 2, "left", "right"), pair=np.zeros((N_TRIALS, 2)),
        ),
        "wheel": td.RegularTimeSeries(sampling_rate=50.0, domain_start=0.0, vel=wheel, raw=np.arange(n_wheel)),
        "cursor": td.IrregularTimeSeries(timestamps=t, pos=np.stack([np.sin(t), np.cos(t)], 1), domain=DOMAIN),
        "phases": td.Data(reach=td.Interval(start=STARTS[::2] + 0.1, end=STARTS[::2] + 0.3), domain="auto"),
        "train_domain": td.Interval(start=np.array([0.0, 9.0]), end=np.array([4.0, END])),
        "valid_domain": td.Interval(start=np.array([4.0]), end=np.array([6.0])),
        "test_domain": td.Interval(start=np.array([6.0]), end=np.array([7.0])),
        "domain": DOMAIN,
    }  # fmt: skip


def write(path, content):
    """Write objects by name as a file; those that are None are left out."""
    data = td.Data(**{name: value for name, value in content.items() if value is not None})
    with h5py.File(path, "w") as file:
        data.to_hdf5(file)
    return path
