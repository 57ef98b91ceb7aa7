"""Submission files: their names, how they are written, and what is refused."""

import h5py
import numpy as np
import pytest

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission import check, layout, write
from neuro_lightning.submission.write import write_submission


def arrays(n_train=6, n_eval=4, n_bins=10, n_in=9, n_out=8, n_forward=3, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    for name in layout.RATES:
        trials = n_train if name in layout.TRAIN else n_eval
        bins = n_forward if name in layout.FORWARD else n_bins
        made[name] = rng.gamma(2, 0.1, (trials, bins, n_out if "heldout" in name else n_in))
    return made


def content(path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {f"{group}/{name}": file[group][name][()] for group in file for name in file[group]}


def test_groups_are_named_as_the_benchmark_does():
    assert layout.group_name("mc_maze", 5) == "mc_maze"
    assert layout.group_name("dmfc_rsg", 20) == "dmfc_rsg_20"
    assert layout.OFFICIAL["mc_maze_small_20"] == ("mc_maze_small", 20)
    assert layout.group_order({"zebra", "mc_rtt_20", "mc_maze_small", "mc_rtt"}) == [
        "mc_rtt",
        "mc_rtt_20",
        "mc_maze_small",
        "zebra",
    ]


def test_scaling_sets_are_merged_by_bin_width():
    results = layout.official_results(
        {"mc_maze_small": {"co-bps": 1.0}, "mc_maze_large": {"co-bps": 2.0}, "mc_maze": {"co-bps": 3.0},
         "mc_maze_medium_20": {"vel R2": 4.0}}
    )  # fmt: skip
    assert results == [
        {"mc_maze_split": {"co-bps": 3.0}},
        {"mc_maze_scaling_split": {"[500] co-bps": 2.0, "[100] co-bps": 1.0}},
        {"mc_maze_scaling_20_split": {"[250] vel R2": 4.0}},
    ]


def test_rates_are_written_as_compressed_float32(tmp_path):
    given = arrays()
    path = write_submission(tmp_path / "new" / "sub.h5", "mc_rtt", 20, given)
    with h5py.File(path) as file:
        assert set(file) == {"mc_rtt_20"} and set(file["mc_rtt_20"]) == set(layout.RATES)
        for name, array in given.items():
            stored = file["mc_rtt_20"][name]
            assert stored.dtype == np.float32 and stored.compression == "gzip"
            assert np.array_equal(stored[()], array.astype(np.float32))
    assert [p.name for p in path.parent.iterdir()] == ["sub.h5"]


def test_merging_keeps_other_datasets_and_replaces_the_same_one(tmp_path):
    path = tmp_path / "sub.h5"
    write_submission(path, "mc_rtt", 5, arrays(seed=1))
    write_submission(path, "mc_maze", 5, arrays(seed=2), merge_into=path)
    before = content(path)
    evaluation_only = {name: array for name, array in arrays(seed=3).items() if name in layout.EVAL}
    write_submission(path, "mc_maze", 5, evaluation_only, merge_into=path)
    after = content(path)
    assert {key for key in after if key.startswith("mc_maze")} == {f"mc_maze/{name}" for name in layout.EVAL}
    assert np.array_equal(after["mc_maze/eval_rates_heldin"], evaluation_only["eval_rates_heldin"].astype(np.float32))
    for key in (key for key in before if key.startswith("mc_rtt")):
        assert np.array_equal(before[key], after[key])
    write_submission(path, "mc_rtt", 20, arrays())
    assert {key.split("/")[0] for key in content(path)} == {"mc_rtt_20"}


def test_merging_while_another_process_merges_is_refused(tmp_path, monkeypatch):
    path = write_submission(tmp_path / "sub.h5", "mc_rtt", 5, arrays())
    own = write._write

    def slow(*given):
        monkeypatch.setattr(write, "_write", own)
        write_submission(path, "mc_maze", 5, arrays(seed=2), merge_into=path)
        own(*given)

    monkeypatch.setattr(write, "_write", slow)
    with pytest.raises(SubmissionError, match=r"sub\.h5: another process has written it meanwhile; merge again"):
        write_submission(path, "dmfc_rsg", 5, arrays(seed=3), merge_into=path)
    assert {key.split("/")[0] for key in content(path)} == {"mc_rtt", "mc_maze"}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_submission(tmp_path / "sub.h5", "mc_rtt", 5, arrays())
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write", full_disk)
        with pytest.raises(SubmissionError, match=r"sub\.h5 cannot be written .*No space left"):
            write_submission(path, "mc_rtt", 5, arrays(seed=1))
    with pytest.raises(SubmissionError, match=r"gone\.h5: no such file"):
        write_submission(path, "mc_rtt", 5, arrays(seed=1), merge_into=tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(SubmissionError, match=r"text\.h5 cannot be read"):
        write_submission(path, "mc_rtt", 5, arrays(seed=1), merge_into=tmp_path / "text.h5")
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"sub.h5", "text.h5"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("eval_rates_heldin", lambda a: a * np.nan, "not finite"),
        ("eval_rates_heldin", lambda a: a * 1e300, "not finite"),  # too large for float32
        ("train_rates_heldout", lambda a: -a, "negative"),
        ("eval_rates_heldout", lambda a: a[0], r"the shape is \(10, 8\)"),
        ("eval_rates_heldout", lambda a: a[:, 1:], r"eval_rates_heldout has the shape \(4, 9, 8\), .*T = 10"),
        ("train_rates_heldin", lambda a: a[..., 1:], "eval_rates_heldin has .*I = 8 as in train_rates_heldin"),
        ("eval_rates_heldout_forward", lambda a: a[..., 1:], "N = 8"),
        ("train_rates_heldin", lambda a: a[1:], "train_rates_heldout has .*A = 5"),
        ("eval_rates_heldout", lambda a: a.astype(str), "expected numbers"),
    ],
)
def test_bad_rates_are_not_written(tmp_path, name, change, message):
    given = arrays()
    given[name] = change(given[name])
    with pytest.raises(SubmissionError, match=message):
        write_submission(tmp_path / "sub.h5", "mc_rtt", 5, given)
    assert not list(tmp_path.iterdir())


def test_forward_trials_must_be_the_evaluation_trials(tmp_path):
    given = arrays()
    for name in layout.FORWARD:
        given[name] = given[name][1:]
    with pytest.raises(SubmissionError, match=r"eval_rates_heldin_forward has the shape \(3, .*B = 4"):
        write_submission(tmp_path / "sub.h5", "mc_rtt", 5, given)


def test_unknown_and_missing_arrays_are_refused(tmp_path):
    with pytest.raises(SubmissionError, match=r"unknown arrays \['eval_rates'\]"):
        write_submission(tmp_path / "sub.h5", "mc_rtt", 5, arrays() | {"eval_rates": np.ones((1, 1, 1))})
    given = arrays()
    del given["train_rates_heldin"]
    with pytest.raises(SubmissionError, match="train_rates_heldin missing"):
        write_submission(tmp_path / "sub.h5", "mc_rtt", 5, given)
    given = arrays()
    del given["eval_rates_heldout"]
    with pytest.raises(SubmissionError, match="eval_rates_heldout missing"):
        write_submission(tmp_path / "sub.h5", "mc_rtt", 5, given)


def test_checking_rates_against_the_data():
    given = arrays()
    shapes = {name: array.shape for name, array in given.items()}
    check.check_submission("s.h5:/mc_rtt", given, shapes)
    with pytest.raises(SubmissionError, match=r"s\.h5:/mc_rtt/train_rates_heldin: the shape .*every trial"):
        check.check_submission("s.h5:/mc_rtt", given, shapes | {"train_rates_heldin": (7, 10, 9)})
    with pytest.raises(SubmissionError, match="dataset, split and bin width"):
        check.check_submission("s.h5:/mc_rtt", given, shapes | {"train_rates_heldin": (6, 10, 10)})


def test_a_group_that_is_not_there_is_named(tmp_path):
    path = write_submission(tmp_path / "sub.h5", "mc_rtt", 5, arrays())
    with check.open_h5(path) as file, pytest.raises(SubmissionError, match=r"sub\.h5: no group 'mc_maze'"):
        check.arrays_of(file, "mc_maze", str(path))


def test_hz_and_a_wrong_order_are_found_by_the_spikes():
    rng = np.random.default_rng(0)
    counts = rng.gamma(1, 0.1, 30)
    good = np.clip(counts * rng.normal(1, 0.05, (20, 15, 30)), 0, None)
    shapes = {name: good.shape for name in layout.EVAL}

    def submit(rates, bin_ms=5):
        known = {"eval_rates_heldin": counts}
        check.check_submission("s", dict.fromkeys(layout.EVAL, rates), shapes, mean_counts=known, bin_ms=bin_ms)

    submit(good)
    submit(good * 3)  # a poor model is no error
    submit(np.full_like(good, counts.mean()))
    for bin_ms, factor in ((5, 200), (20, 50)):
        with pytest.raises(SubmissionError, match=f"look like Hz: divide them by {factor}"):
            submit(good * factor, bin_ms)
    with pytest.raises(SubmissionError, match="only in another order"):
        submit(good[..., ::-1])


def test_blocks_cover_everything_once_and_keep_to_chunks(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("a", data=np.zeros((23, 10, 3)), chunks=(2, 10, 3))
        found = list(row_blocks(stored, 10 * 3 * 5))
    assert found == [slice(k, min(k + 4, 23)) for k in range(0, 23, 4)]
    assert list(row_blocks(np.zeros((0, 2, 2)))) == []
