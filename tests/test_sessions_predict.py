"""What comes after the training of several sessions: predictions, ensembles, latents, of all and of each alone."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, here, record
from test_nwb_trials import STARTS, random_spikes, write
from tiny import Tiny

import neuro_lightning as nl
from neuro_lightning.analysis.latents_file import read_latents
from neuro_lightning.data.identity import identity_of
from neuro_lightning.data.sessions import Sessions
from neuro_lightning.display.figures_latents import joint_components, shared_conditions
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.models.base import CHECKPOINT_KEY
from neuro_lightning.models.loading import load_checkpoint, read_checkpoint
from neuro_lightning.runs.predict import predict
from neuro_lightning.runs.refit import joint_data
from neuro_lightning.settings.quoting import override

SIZES = {"monday": (37, 11), "tuesday": (20, 9), "wednesday": (12, 5)}


def words_of(*names: str) -> list[str]:
    """The command line that trains on these sessions."""
    words = [word for word in TINY if word != "data=tiny"]
    words += ["data=sessions", "data.batch_size=10", "data.eval_batch_size=4"]
    for name in names:
        n_train, n_val = SIZES[name]
        words += [f"+data@data.sessions.{name}=tiny", f"data.sessions.{name}.n_train={n_train}",
                  f"data.sessions.{name}.n_val={n_val}"]  # fmt: skip
    return words


def predicted(*words: str) -> Path:
    """The file that ``python predict.py`` writes."""
    with initialize_config_dir(str(ROOT / "conf")):
        return predict(compose("predict", overrides=["trusted=[tiny]", "device=cpu", *words]))


def contents(group: h5py.Group) -> dict[str, np.ndarray]:
    """All arrays below a group by their path."""
    found = {}
    group.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return here(tmp_path_factory.mktemp("several") / "run", base=words_of(*SIZES)).folder


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """Predictions and latents of all sessions, and of each alone, as files."""
    folder, found = tmp_path_factory.mktemp("files"), {}
    for output in ("predictions", "latents"):
        for session in [None, *SIZES]:
            path = folder / f"{output}_{session}.h5"
            found[output, session] = predicted(
                f"ckpt={run}", f"output={output}", f"session={session or 'null'}", override("file", path)
            )
    return found


@pytest.mark.parametrize("output", ["predictions", "latents"])
def test_a_session_is_predicted_alike_alone_and_among_others(files, output):
    with h5py.File(files[output, None]) as everything:
        assert set(everything) == set(SIZES)
        for session in SIZES:
            with h5py.File(files[output, session]) as alone:
                assert dict(alone.attrs) == dict(everything[session].attrs)
                one, other = contents(alone), contents(everything[session])
            assert one.keys() == other.keys() and "val/row" in one and len(one["val/row"]) == SIZES[session][1]
            assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_tables_show_the_scores_of_the_training(run, capsys):
    path = predicted(f"ckpt={run}", override("file", run / "shown.h5"), "checkpoint=best")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    metrics = {name: value for name, value in record(run)["metrics"].items() if name.startswith("test/co_bps")}
    assert len(metrics) == 4 and path.is_file(), "three sessions and their mean"
    for name, value in metrics.items():
        assert any(line[:3] == ["test", name.partition("co_bps/")[2] or "mean", f"{value:.4f}"] for line in lines), name


def test_a_checkpoint_is_that_of_each_of_its_sessions(run):
    saved = load_checkpoint(run, trusted=["tiny"])
    parts = saved.by_session()
    assert list(parts) == list(SIZES) and list(load_checkpoint(run, trusted=["tiny"]).model.by_session()) == list(SIZES)
    for session, part in parts.items():
        assert part.spec.session == session and not part.spec.sessions and part.data["n_train"] == SIZES[session][0]
        assert part.data["eval_batch_size"] == 4 and len(part.identity["trials"]["train"]["keys"]) == SIZES[session][0]
        assert part.model.net is saved.model.net.sessions[list(SIZES).index(session)]
        assert part.model.net.core is saved.model.net.sessions[0].core


def test_ensembles_are_averaged_session_by_session(run, tmp_path):
    other = here(tmp_path / "other", "seed=5", base=words_of(*SIZES)).folder
    path = predicted(f"ckpt=[{run},{other}]", override("file", tmp_path / "mean.h5"))
    each = [predicted(f"ckpt={k}", override("file", tmp_path / f"{i}.h5")) for i, k in enumerate((run, other))]
    with h5py.File(path) as mean, h5py.File(each[0]) as one, h5py.File(each[1]) as two:
        for session in SIZES:
            name = f"{session}/test/predictions"
            np.testing.assert_allclose(mean[name], (one[name][()] + two[name][()]) / 2, rtol=1e-6)
    assert set(json.loads((tmp_path / "mean.h5.json").read_text())) == set(SIZES)


def test_a_run_on_one_session_joins_an_ensemble_for_it(run, tmp_path):
    alone = here(tmp_path / "alone", "data.n_train=20", "data.n_val=9", "data.batch_size=10").folder
    words = f"ckpt=[{run},{alone}]", override("file", tmp_path / "mean.h5")
    with h5py.File(predicted(*words, "session=tuesday")) as file:
        assert set(file) == {"train", "val", "test", "unit_ids"}
    with pytest.raises(CheckpointError, match="cannot be taken together, their data differ"):
        predicted(*words, "session=monday", "overwrite=true")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["session=friday"], "was trained on the sessions monday, tuesday, wednesday, and on no session friday"),
        (["data.path=other.nwb"], "data.path is about the neurons of one session: name it as session=NAME, one of mon"),
        (["output=submission"], "several sessions would be tiny_10 in the file; give session=NAME"),
    ],
)
def test_what_needs_a_session_is_refused_in_a_line(run, words, message):
    with pytest.raises((ConfigError, CheckpointError), match=message):
        predicted(f"ckpt={run}", *words)


def test_a_run_on_one_recording_has_no_sessions_to_name(tmp_path):
    alone = here(tmp_path / "alone", "trainer.max_epochs=1").folder
    with pytest.raises(ConfigError, match=r"session=monday: .* was trained on one recording; leave it out"):
        predicted(f"ckpt={alone}", "session=monday")


@pytest.mark.parametrize("damage", ["sessions", "tuesday", "trials"])
def test_a_damaged_identity_of_a_session_is_one_line(run, damage):
    recipe = read_checkpoint(run)[CHECKPOINT_KEY]
    identity = recipe["identity"]
    if damage == "sessions":
        identity["sessions"] = 3
    elif damage == "tuesday":
        identity["sessions"]["tuesday"] = None
    else:
        identity["sessions"]["tuesday"]["trials"]["train"]["keys"] = [1]
    with pytest.raises(CheckpointError, match="description of its data is damaged"):
        identity_of(recipe)


def test_a_checkpoint_that_lacks_the_notes_of_a_session_is_one_line(run, tmp_path):
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    del content[CHECKPOINT_KEY]["identity"]["sessions"]["tuesday"]
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match="description of session tuesday is damaged"):
        predicted(f"ckpt={tmp_path / 'best.ckpt'}")


# ---- refit, few trials


def test_a_refit_joins_the_trials_of_each_session(tmp_path):
    words = ["data.train_trials=15", "refit=true", "callbacks=default", "callbacks.figures=null"]
    folder = here(tmp_path / "run", *words, base=words_of("monday", "tuesday")).folder
    said = record(folder)["refit"]
    assert said["trials"] == 15 + 11 + 15 + 9 and said["steps"] == 3 * 4, "an epoch keeps its two steps of each session"
    assert set(said["metrics"]) >= {"test/co_bps", "test/co_bps/monday", "test/co_bps/tuesday"}
    saved = load_checkpoint(said["checkpoint"], trusted=["tiny"])
    assert saved.fitted_on == ("train", "val") and "refit" in str(saved.path)
    path = predicted(f"ckpt={folder}", override("file", tmp_path / "p.h5"))
    with h5py.File(path) as file:
        net = saved.by_session()["tuesday"].model.net.double()
        inputs = Tiny(n_train=20, n_val=9, poison={}).dataset("test", evaluate=True)[list(range(9))]["inputs"]
        rates = net(inputs.double())["log_rates"].exp().detach().numpy()
        np.testing.assert_allclose(file["tuesday/test/predictions"], rates, rtol=1e-5)
        assert len(file["monday/train/predictions"]) == 15, "the limit holds for each session"


def test_joined_epochs_keep_their_steps_of_every_session():
    parts = {name: Tiny(n_train=n, n_val=val, poison={}) for name, (n, val) in SIZES.items()}
    data = Sessions(parts, batch_size=10, shuffle_seed=3)
    before, joint = list(data.train_dataloader()), joint_data(data)
    after = list(joint.train_dataloader())
    for session, (n, val) in enumerate(SIZES.values()):
        of_it = [[batch for batch in found if batch["session"] == session] for found in (before, after)]
        assert len(of_it[0]) == len(of_it[1])
        assert torch.cat([batch["index"] for batch in of_it[1]]).sort().values.tolist() == list(range(n + val))
    assert len(data.sessions["monday"].recording.splits["train"]) == 37, "the data themselves are as they were"


# ---- from Python


def test_a_run_from_python_is_that_of_each_session(run, files):
    loaded = nl.load(run, trusted=["tiny"])
    assert list(loaded.sessions) == list(SIZES) and list(loaded.data.by_session()) == list(SIZES)
    monday = loaded.sessions["monday"]
    assert monday.scores["val/co_bps"] == loaded.scores["val/co_bps/monday"] and "/monday" not in str(monday.scores)
    assert loaded.scores["val/co_bps"] == pytest.approx(
        np.mean([part.scores["val/co_bps"] for part in loaded.sessions.values()])
    )
    assert monday.table["mean rate"]["val/co_bps"] == 0 and len(monday.unit_ids) == 10
    with h5py.File(files["predictions", None]) as rates, h5py.File(files["latents", None]) as latents:
        for session in SIZES:
            np.testing.assert_array_equal(
                rates[session]["val/predictions"], loaded.rates("val", session=session).astype(np.float32)
            )
            np.testing.assert_array_equal(latents[session]["val/latents"], loaded.latents(session=session))
    counts = monday.data.recording.splits["val"].heldin
    np.testing.assert_array_equal(loaded.predict(counts, session="monday"), monday.rates("val"))
    assert monday.sessions == {} and "on monday seed" in repr(monday)


def test_runs_are_compared_where_their_sessions_are_the_same(run, tmp_path):
    loaded = nl.load(run, trusted=["tiny"])
    alone = nl.load(here(tmp_path / "alone", "data.n_train=20", "data.n_val=9").folder, trusted=["tiny"])
    table = nl.compare({"alone": alone, "among others": loaded.sessions["tuesday"]})
    wanted = loaded.scores["val/co_bps/tuesday"] - alone.scores["val/co_bps"]
    assert table.loc["val/co_bps", "among others difference"] == pytest.approx(wanted)
    two = nl.load(here(tmp_path / "two", base=words_of("monday", "tuesday")).folder, trusted=["tiny"])
    for others in ([loaded, two], [loaded, alone], [alone, two]):
        with pytest.raises(ConfigError, match=r"nothing to compare; of several sessions give run\.sessions\[NAME\]"):
            nl.compare(others)
    with pytest.raises(ConfigError, match=r"the val trials of .* are others"):
        nl.compare([loaded.sessions["monday"], alone])


@pytest.mark.parametrize("ask", ["rates", "latents", "unit_ids"])
def test_what_is_of_one_session_asks_for_its_name(run, ask):
    loaded = nl.load(run, trusted=["tiny"])
    with pytest.raises(
        ConfigError, match="has several sessions: name one as session=NAME; it has monday, tuesday, wed"
    ):
        loaded.unit_ids if ask == "unit_ids" else getattr(loaded, ask)()
    if ask != "unit_ids":
        with pytest.raises(ConfigError, match="has no session friday; it has monday"):
            getattr(loaded, ask)(session="friday")


def test_figures_of_sessions_are_drawn_in_folders_of_their_own(run):
    loaded = nl.load(run, trusted=["tiny"])
    found = loaded.figures()
    each = {
        "rates", "neurons", "latents", "psth", "calibration", "decoding", "dimensions", "flow", "forward",
        "against_oracle", "single_trials", "sorted_raster",
    }  # fmt: skip
    assert set(found) == {"learning_curve", "latents_together"} | {f"{s}/{name}" for s in SIZES for name in each}
    assert set(loaded.sessions["monday"].figures()) == each


def test_latents_of_one_session_are_read_from_the_file_of_all(files):
    path = files["latents", None]
    latents = read_latents(path, session="tuesday")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(latents.values[:20], file["tuesday/train/latents"])
    for session, message in ((None, "several sessions, choose one as --session: it has monday"), ("x", "no session x")):
        with pytest.raises(DataError, match=message):
            read_latents(path, session=session)
    with pytest.raises(DataError, match="holds no session monday: it is of one recording"):
        read_latents(files["latents", "monday"], session="monday")


# ---- files


def nwb_sessions(folder: Path) -> Path:
    """A run on two NWB files with other units, day1 and day2."""
    for day, n in (("day1", 6), ("day2", 8)):
        write(folder / f"{day}.nwb", random_spikes(int(day[-1]), n_units=n), STARTS)
    base = [word for word in TINY if not word.startswith(("data=", "trainer.max_epochs"))]
    words = ["data=nwb", "data.bin_ms=20", "data.heldout_fraction=0.25", "trainer.max_epochs=1"]
    words += [override("data.path", str(folder)), "paths.cache=${paths.output_dir}/cache"]
    return here(folder / "run", *words, base=base).folder


def test_another_file_of_one_session_is_predicted(tmp_path):
    run = nwb_sessions(tmp_path)
    write(tmp_path / "later.nwb", random_spikes(9, n_units=8), STARTS)
    other = [override("data.path", tmp_path / "later.nwb"), "data.same_units=true"]
    path = predicted(f"ckpt={run}", "session=day2", *other)
    with h5py.File(path) as file:
        assert path.name == "predictions_day2_later.h5" and len(file["unit_ids"]) == 8
        n_trials = sum(len(file[name]["predictions"]) for name in file if name != "unit_ids")
        assert n_trials == len(STARTS)
    write(tmp_path / "few.nwb", random_spikes(9, n_units=6), STARTS)
    with pytest.raises(DataError, match=r"few\.nwb lacks"):
        predicted(f"ckpt={run}", "session=day2", override("data.path", tmp_path / "few.nwb"), "data.same_units=true")


def test_a_submission_has_the_datasets_of_all_sessions(tmp_path, monkeypatch):
    load = Tiny.load
    monkeypatch.setattr(Tiny, "load", lambda self: replace(load(self), name=f"tiny{self.sizes['train']}"))
    run = here(tmp_path / "run", "trainer.max_epochs=1", base=words_of("monday", "tuesday")).folder
    path = predicted(f"ckpt={run}", "output=submission")
    one = predicted(f"ckpt={run}", "output=submission", "session=tuesday")
    assert path.name == "submission_sessions_10ms.h5" and one.name == "submission_tiny20_10ms_tuesday.h5"
    with h5py.File(path) as file, h5py.File(one) as alone:
        assert set(file) == {"tiny37_10", "tiny20_10"} and set(alone) == {"tiny20_10"}
        whole, part = contents(file["tiny20_10"]), contents(alone["tiny20_10"])
        assert whole.keys() == part.keys() and all(np.array_equal(whole[name], part[name]) for name in whole)
    with pytest.raises(ConfigError, match="holds tiny37_10 already"):
        predicted(f"ckpt={run}", "output=submission", override("merge_into", path))


def test_nothing_is_left_of_a_file_whose_second_session_fails(run, tmp_path, monkeypatch):
    def fails(data, rates, decoded):
        if len(rates["val"]) == SIZES["tuesday"][1]:
            raise DataError("tuesday fails")

    monkeypatch.setattr("neuro_lightning.runs.predict.score_rates", fails)
    with pytest.raises(DataError, match="tuesday fails"):
        predicted(f"ckpt={run}", override("file", tmp_path / "p.h5"))
    assert not list(tmp_path.iterdir())


def test_joint_components_give_each_session_the_same_weight():
    rng = np.random.default_rng(0)
    large, small = rng.normal(size=(90, 10, 4)) * [3, 1, 0.1, 0.1], rng.normal(size=(9, 10, 4)) * [0.1, 0.1, 0.1, 3]
    small[0, 5:] = np.nan  # a shorter trial
    center, axes, explained = joint_components([large, small], 2)
    assert center.shape == (4,) and np.abs(axes[:, [0, 3]]).max(0).min() > 0.9 and explained.sum() > 0.8
    twice = joint_components([np.concatenate([large, large]), small], 2)
    np.testing.assert_allclose(np.abs(twice[1]), np.abs(axes), atol=1e-12)


@pytest.mark.parametrize(
    ("conditions", "shared"),
    [
        ([[0, 1, 2, -1], [2, 0]], [0, 2]),
        ([[0, 1], [0, 1, 2]], []),  # other conditions
        ([[0, 1], None], []),
        ([[-1, -1], [-1]], []),
    ],
)
def test_conditions_are_joined_where_they_match(conditions, shared):
    found = shared_conditions([None if each is None else np.array(each) for each in conditions])
    assert found.tolist() == shared
