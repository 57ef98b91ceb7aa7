"""A recording over a real socket: what is said of each bin, what is lost, and what is drawn."""

import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import forks
import numpy as np
import pytest
from figure_checks import drawn, titles
from runs import ROOT, TESTS, TINY, here
from tiny import BINS, N_IN

import neuro_lightning as nl
from neuro_lightning.display import figures_live
from neuro_lightning.display.figures_live import stream_figure
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.live import command, player
from neuro_lightning.live.command import main
from neuro_lightning.live.listener import Log, listen, listening
from neuro_lightning.live.player import bins_of, play
from neuro_lightning.live.protocol import END, NOTHING, Message, pack, unpack

zmq = pytest.importorskip("zmq", reason="the optional package of sockets, pyzmq, is not installed")
SPEED = 100  # bins of 10 ms, every 0.1 ms


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A causal run on the tiny recording."""
    folder = tmp_path_factory.mktemp("live")
    here(folder, "model.bidirectional=false", "trainer.max_epochs=1", base=TINY)
    return nl.load(folder, trusted=["tiny"])


@contextmanager
def sender(send, *arguments, **options):
    """What sends, in a thread of its own; its error is raised in the end."""
    errors = []

    def work():
        try:
            send(*arguments, **options)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive() and not errors, errors


def streamed(run, send, *arguments, **options):
    """The stream and the log of what ``send(address, ...)`` sends over loopback."""
    stream, log, end = nl.stream(run.folder, behavior=True, trusted=["tiny"]), Log(), time.monotonic() + 20
    with listening(command.ANY_PORT) as (socket, address), sender(send, address, *arguments, **options):
        listen(stream, socket, log, lambda: time.monotonic() < end)
    return stream, log


def play_val(address, run, **options):
    trials = run.data.recording.splits["val"]
    return play(bins_of(trials, behavior=True), address, bin_ms=10, **{"speed": SPEED, **options})


def send_all(address, messages):
    """Messages as they are, one after the other."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(address)
        for message in [*messages, END]:
            socket.send(message if isinstance(message, bytes) else pack(message))


# ---- the bins of a recording


def test_what_comes_over_the_socket_is_said_as_of_whole_trials(run):
    stream, log = streamed(run, play_val, run)
    trials, val = log.trials(), run.data.recording.splits["val"]
    assert [trial.number for trial in trials] == list(range(len(val))) and stream.missing == stream.dropped == 0
    rates = np.stack([trial.rates for trial in trials])
    np.testing.assert_allclose(rates, run.rates("val")[:, :BINS], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.stack([trial.counts for trial in trials]), val.heldin)
    np.testing.assert_allclose(np.stack([trial.behavior for trial in trials]), val.behavior, rtol=1e-6)
    decoded = np.stack([trial.decoded for trial in trials])
    error, total = (np.square(val.behavior - other).sum((0, 1)) for other in (decoded, val.behavior.mean((0, 1))))
    assert (1 - error / total).mean() == pytest.approx(run.scores["val/vel_r2"], abs=1e-4)
    assert len(log.latency) == len(log.computing) == rates.shape[0] * BINS
    assert 0 < np.median(log.computing) <= np.median(log.latency) < 5


def test_bins_are_sent_when_they_are_over_and_one_that_is_late_makes_no_other_late(monkeypatch):
    """By a clock of our own: sending the third bin takes as long as two bins."""
    clock, sent = [100.0], []

    def send(data, *_):
        sent.append((clock[0], unpack(data, 2)))
        clock[0] += 0.04 if len(sent) == 3 else 0.001

    socket = SimpleNamespace(setsockopt=lambda *_: None, connect=lambda *_: None, poll=lambda *_: True, send=send)
    held = type("Held", (), {"__enter__": lambda self: self.it, "__exit__": lambda *_: None})
    one, two = held(), held()
    one.it, two.it = SimpleNamespace(socket=lambda _: two), socket
    monkeypatch.setattr(zmq, "Context", lambda: one)
    own = SimpleNamespace(
        perf_counter=lambda: clock[0], time=lambda: 1e9 + clock[0],
        sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds),
    )  # fmt: skip
    monkeypatch.setattr(player, "time", own)
    bins = [Message(0, k, 0.0, np.zeros(2), NOTHING) for k in range(7)]
    assert play(bins, "tcp://x", bin_ms=20) == 0
    found = np.array([when for when, _ in sent[:-1]]) - 100
    np.testing.assert_allclose(found, [0.02, 0.04, 0.06, 0.1, 0.101, 0.12, 0.14], atol=1e-9)
    stamps = np.array([message.time for _, message in sent[:-1]])
    np.testing.assert_allclose(stamps - 1e9 - 100, 0.02 * np.arange(1, 8), atol=1e-6)  # when they were over
    assert sent[-1][1] is END


def test_the_end_of_short_trials_is_not_played():
    observed = np.ones((2, 5, 3), bool)
    observed[0, 3:], observed[1, 1, 0] = False, False
    counts = np.arange(20).reshape(2, 5, 2)
    bins = list(bins_of(SimpleNamespace(heldin=counts, observed=observed), behavior=False))
    assert [(each.trial, each.number) for each in bins] == [(0, k) for k in range(3)] + [(1, k) for k in range(5)]
    assert np.isnan(bins[4].counts[0]) and bins[4].counts[1] == counts[1, 1, 1] and bins[4].behavior.size == 0


def test_nobody_who_listens_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr(player, "WAIT_MS", 50)
    with pytest.raises(ConfigError, match="nobody listens at tcp"):
        play([], "tcp://127.0.0.1:9", bin_ms=10)


# ---- what is lost, late or double


def test_lost_late_and_double_messages_follow_the_rule_of_the_stream(run):
    """The bins 1 and 2 of a trial are lost, 3 comes twice, 2 too late, the next trial begins with its bin 1."""
    val = run.data.recording.splits["val"]
    order = [(0, 0), (0, 3), (0, 3), (0, 2), (0, 4), (1, 1), (0, 5), (1, 2)]
    bins = [Message(trial, k, time.time(), val.heldin[trial, k], NOTHING) for trial, k in order]
    stream, log = streamed(run, send_all, bins)
    assert (stream.missing, stream.dropped) == (3, 3)
    one, two = log.trials()
    expected, gone = nl.stream(run.folder, trusted=["tiny"]), np.full(N_IN, np.nan)
    for trial, shown in (
        (one, [val.heldin[0, 0], gone, gone, val.heldin[0, 3], val.heldin[0, 4]]),
        (two, [gone, val.heldin[1, 1], val.heldin[1, 2]]),
    ):
        expected.reset()
        rates = np.stack([expected.step(counts).rates for counts in shown])
        came = ~np.isnan(np.stack(shown)).any(1)
        np.testing.assert_array_equal(trial.rates[came], rates[came])
        np.testing.assert_array_equal(trial.counts, shown)
        assert np.isnan(trial.rates[~came]).all() and trial.behavior is None


def test_bins_can_be_lost_on_purpose(run):
    stream, log = streamed(run, play_val, run, lose=0.3)
    sent, played = len(log.answers), len(run.data.recording.splits["val"]) * BINS
    assert 0.5 < sent / played < 0.9
    assert stream.missing == sum(int(np.isnan(trial.counts).all(1).sum()) for trial in log.trials())


def test_messages_that_cannot_be_read_are_refused_and_what_came_before_is_kept(run):
    good = Message(0, 0, time.time(), np.ones(N_IN), NOTHING)
    for bad, words in (
        (pack(good)[:-1], f"a message of {16 + 4 * N_IN - 1} bytes, trial 0, bin 0: one of {N_IN} neurons has"),
        (pack(good._replace(number=-3)), "bin -3"),
        (b"hello", "a message of 5 bytes"),
        (pack(good._replace(number=200)), "bin 200 comes after bin 0"),
    ):
        stream, log = nl.stream(run.folder, trusted=["tiny"]), Log()
        with (
            listening(command.ANY_PORT) as (socket, address),
            sender(send_all, address, [good, bad]),
            pytest.raises(DataError, match=words),
        ):
            listen(stream, socket, log)
        assert len(log.answers) == 1


def test_a_sender_that_is_gone_is_not_waited_for(run):
    with listening(command.ANY_PORT) as (socket, _):
        listen(nl.stream(run.folder, trusted=["tiny"]), socket, Log(), go_on=lambda: False)


def test_an_answer_that_is_late_stands_at_the_bin_that_it_is_about():
    said = [SimpleNamespace(rates=np.array([k - 2.0]), behavior=None) for k in range(5)]
    log = Log()
    for k in range(5):
        log.answers.append(SimpleNamespace(message=Message(0, k, 0.0, np.zeros(1), NOTHING), said=said[k]))
    (trial,) = log.trials(lag=2)
    np.testing.assert_array_equal(trial.rates[:, 0], [0, 1, 2, np.nan, np.nan])


def test_the_program_of_the_docs_sends_what_is_listened_to(run, tmp_path):
    counts = run.data.recording.splits["val"].heldin[3]
    np.save(tmp_path / "counts.npy", counts)
    example = ROOT / "docs" / "how_to" / "send_counts.py"

    def send(address):
        sys.argv[:] = [str(example), address, str(tmp_path / "counts.npy"), "1"]
        runpy.run_path(str(example))

    before = list(sys.argv)
    try:
        _, log = streamed(run, send)
    finally:
        sys.argv[:] = before
    np.testing.assert_allclose(log.trials()[0].rates, run.rates("val")[3, :BINS], rtol=1e-6, atol=1e-6)


# ---- the figure


def test_the_decoded_share_is_that_of_the_bins_that_came():
    trials = trials_of(3)
    trials[1].decoded[4], trials[2].behavior[7, 0] = np.nan, np.nan
    measured, decoded = (np.delete(np.concatenate([getattr(t, n) for t in trials]), [24, 47], 0)
                         for n in ("behavior", "decoded"))  # fmt: skip
    r2 = 1 - np.square(measured - decoded).sum(0) / np.square(measured - measured.mean(0)).sum(0)
    figure = drawn(stream_figure(trials, np.ones(60), np.ones(60), bin_ms=10))
    assert f"(blue): R2 {r2.mean():.3f} in 58 bins" in titles(figure)[0]


def trials_of(n, bins=20, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return [
        SimpleNamespace(
            counts=rng.poisson(0.5, (bins, 6)).astype(float), rates=rng.gamma(2.0, 0.2, (bins, 9)),
            decoded=rng.normal(size=(bins, channels)) if channels else None,
            behavior=rng.normal(size=(bins, channels)) if channels else None,
        )
        for _ in range(n)
    ]  # fmt: skip


def test_the_figure_is_drawn_from_what_was_streamed():
    trials, latency = trials_of(4), np.linspace(1, 3, 101)
    trials[2].counts[5], trials[2].rates[5], trials[2].decoded[5] = np.nan, np.nan, np.nan
    figure = drawn(stream_figure(trials, latency, latency / 2, bin_ms=10, simulated=True))
    counts, rates, first, second, _, _, times, paths = figure.axes
    assert titles(figure)[0] == "red: bins that never came"
    assert figure.get_suptitle() == "Real time · simulated data"
    shown, given = rates.get_images()[0].get_array(), np.concatenate([trial.rates[:, :6] for trial in trials])
    order = [int(np.nanargmin(np.nansum((given - row[:, None]) ** 2, axis=0))) for row in shown.filled(np.nan) / 100]
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(shown.filled(np.nan), 100 * given[:, order].T)  # bins of 10 ms: spikes/s
    np.testing.assert_array_equal(
        counts.get_images()[0].get_array().filled(np.nan),
        np.concatenate([trial.counts for trial in trials])[:, order].T,
    )
    for k, axes in enumerate((first, second)):
        for line, name in zip(axes.lines, ("behavior", "decoded"), strict=False):
            np.testing.assert_array_equal(line.get_ydata(), np.concatenate([getattr(t, name) for t in trials])[:, k])
    assert [line.get_xdata()[0] for line in times.lines] == pytest.approx([2, np.percentile(latency, 99)])
    assert (
        titles(figure)[-2:] == ["latency of 101 bins", "paths, from each trial's start"]
        and sum(bar.get_height() for bar in times.patches) == 202
    )
    end = np.delete(trials[0].decoded, [], 0).sum(0) * 0.01
    np.testing.assert_allclose(paths.lines[1].get_xydata()[-1], end)
    gone = np.delete(trials[2].behavior, 5, 0).sum(0) * 0.01
    np.testing.assert_allclose(paths.lines[4].get_xydata()[-1], gone)  # the measured path leaves out what was not said


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_the_last_trials_are_drawn_with_any_behavior(channels, monkeypatch):
    monkeypatch.setattr(figures_live, "MOST_BINS", 50)
    figure = drawn(stream_figure(trials_of(4, channels=channels), np.ones(80), np.ones(80), bin_ms=10))
    assert figure.axes[0].get_images()[0].get_array().shape == (6, 40)
    figure = drawn(stream_figure(trials_of(1, 90, channels=channels), np.ones(90), np.ones(90), bin_ms=10))
    assert figure.axes[0].get_images()[0].get_array().shape == (6, 50)


# ---- the command


def test_a_wish_that_makes_no_sense_is_refused_in_one_line(run, tmp_path, monkeypatch, capsys):
    for words, message in (
        (["--speed", "0"], "--speed 0 must be above 0"),
        (["--lose", "1"], "--lose 1 a share below 1"),
        (["--play", "tcp://127.0.0.1:9", "--split", "mine"], "--split mine: these data have train, val, test"),
    ):
        assert main([str(run.folder), "--trusted", "tiny", *words]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    assert main([str(run.folder)]) == 1
    assert "a socket needs pyzmq: pip install 'neuro_lightning[live]'" in capsys.readouterr().err


def test_a_player_that_fails_is_said(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert main([str(run.folder), "--trusted", "tiny"]) == 1
    assert "the process that plays has ended early" in capsys.readouterr().err


def command_of(run, folder, *words):
    """The command, in a process that has imported the package already, and so has the player that it starts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)])}
    words = ["-m", "neuro_lightning.live", str(run.folder), "--trusted", "tiny", "--out", "live.png", *words]
    return forks.start(words, folder, environment, forks.executable())


@pytest.mark.slow
def test_one_command_plays_and_streams(run, tmp_path):
    with command_of(run, tmp_path, "--speed", "5") as process:
        out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert f"{11 * BINS} bins; 0 never came, 0 came twice or too late" in out and "written     live.png" in out
    assert (tmp_path / "live.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ctrl_c_ends_both_and_draws_what_has_come(run, tmp_path):
    """Long before the recording does, which takes 13 s at this speed."""
    with command_of(run, tmp_path, "--speed", "0.1") as process:
        assert "listening" in process.stdout.readline() and "playing" in process.stdout.readline()
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=300)  # both have closed their outputs: both have ended
    assert process.returncode == 0 and not error and "interrupted" in out and "written     live.png" in out, (
        out,
        error,
    )
    assert 0 < int(re.search(r"(\d+) bins; 0 never came", out)[1]) < 11 * BINS
