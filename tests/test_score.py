"""The scorer against the benchmark's own evaluation, on target files of every kind."""

import json

import h5py
import numpy as np
import pytest
from nlb_tools import evaluation as nlb
from nlb_tools.make_tensors import save_to_h5

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission import check, layout, score
from neuro_lightning.submission.write import write_submission

N_IN, N_OUT, FORWARD = 5, 3, 4
TRIALS = {"train": 24, "eval": 18}


def targets(dataset: str, seed: int = 0, n_bins: int = 15, forward: bool = True) -> dict[str, np.ndarray]:
    """A target group with the traps of the dataset's real one: silent neurons, NaN, jitter, decode masks."""
    rng = np.random.default_rng(seed)
    interval = dataset == "dmfc_rsg"
    spikes = rng.poisson(0.4, (TRIALS["eval"], n_bins, N_OUT)).astype(float)
    spikes[..., 1] = 0
    group = {}
    jitter = rng.integers(0, 4, TRIALS["eval"]) if interval and n_bins > 8 else np.zeros(TRIALS["eval"], int)
    for part, n in TRIALS.items():
        if interval:
            condition = np.arange(n) % 4  # every one of them with several trials, else the reference fails
            behavior = np.column_stack([condition % 2, condition // 2, np.zeros(n), rng.random((n, 2)) * 800])
            behavior[[1, 4]] = np.nan
        else:
            behavior = rng.normal(size=(n, n_bins, 2))
            behavior[2, -(n_bins // 3) :] = np.nan
            behavior[3] = np.nan
        group[f"{part}_behavior"] = behavior
        if dataset == "area2_bump":
            first = np.arange(n) % 3 > 0
            group[f"{part}_decode_mask"] = np.column_stack([first, ~first])
    if interval:
        for trial, shift in enumerate(jitter):
            spikes[trial, : rng.integers(n_bins // 3, n_bins // 2 + 1) - shift] = np.nan
            spikes[trial, n_bins - shift :] = np.nan
    group["eval_spikes_heldout"] = spikes
    if forward:
        for side, n in (("heldin", N_IN), ("heldout", N_OUT)):
            group[f"eval_spikes_{side}_forward"] = rng.poisson(0.3, (TRIALS["eval"], FORWARD, n)).astype(float)
    if dataset != "mc_rtt":
        group |= psth_targets(rng, n_bins, interval)
        if interval:
            group["eval_jitter"] = jitter
    return group


def psth_targets(rng: np.random.Generator, n_bins: int, padded: bool) -> dict[str, np.ndarray]:
    """PSTHs of four conditions of different size, one without trials."""
    psth = rng.random((4, n_bins, N_IN + N_OUT))
    psth[..., 2] = 0
    if padded:
        for c, n in enumerate(rng.integers(n_bins // 3, n_bins // 2 + 1, 4)):
            psth[c, :n] = np.nan
    trials = rng.permutation(TRIALS["eval"])
    index = np.empty(4, dtype=object)
    index[:] = [trials[:3], trials[3:3], trials[3:9], trials[9:16]]
    return {"psth": psth, "eval_cond_idx": index}


def rates(dataset: str, seed: int = 0, n_bins: int = 15, forward: bool = True) -> dict[str, np.ndarray]:
    """Predicted rates, some of them exactly zero."""
    rng = np.random.default_rng(seed + 100)
    arrays = {}
    for name in layout.RATES:
        if (name in layout.FORWARD and not forward) or (name in layout.TRAIN and dataset == "dmfc_rsg"):
            continue
        n_trials = TRIALS[name.split("_")[0]]
        shape = (n_trials, FORWARD if name in layout.FORWARD else n_bins, N_OUT if "heldout" in name else N_IN)
        arrays[name] = rng.gamma(2, 0.2, shape).astype(np.float32)
        arrays[name][rng.random(shape) < 0.05] = 0
    return arrays


def agree(ours: list, reference: list) -> None:
    """The same structure, and every number to 1e-9."""
    assert [list(entry) for entry in ours] == [list(entry) for entry in reference]
    for our_entry, entry in zip(ours, reference, strict=True):
        for split, values in entry.items():
            assert set(our_entry[split]) == set(values)
            for name, value in values.items():
                assert our_entry[split][name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), (split, name)


@pytest.fixture
def files(tmp_path):
    """Writes targets by the field's tool and rates by ours; returns both paths."""

    def write(groups: dict[str, tuple[dict, dict]]):
        target, submission = tmp_path / "targets.h5", tmp_path / "submission.h5"
        save_to_h5({group: t for group, (t, _) in groups.items()}, str(target))
        for k, (group, (_, r)) in enumerate(groups.items()):
            dataset, bin_ms = layout.OFFICIAL[group]
            write_submission(submission, dataset, bin_ms, r, merge_into=submission if k else None)
        return target, submission

    return write


def test_all_datasets_at_both_bin_widths_equal_the_reference(files):
    groups = {}
    for seed, (group, (dataset, bin_ms)) in enumerate(layout.OFFICIAL.items()):
        n_bins = 15 if bin_ms == 5 else 9
        groups[group] = targets(dataset, seed, n_bins), rates(dataset, seed, n_bins)
    paths = files(groups)
    ours, reference = score.score(*paths), nlb.evaluate(*map(str, paths))
    agree(ours, reference)
    assert [next(iter(entry)) for entry in ours][-2:] == ["mc_maze_scaling_split", "mc_maze_scaling_20_split"]
    assert {"[500] co-bps", "[250] vel R2", "[100] psth R2", "[100] fp-bps"} <= set(
        ours[-1]["mc_maze_scaling_20_split"]
    )
    assert set(ours[6]["dmfc_rsg_split"]) == {"co-bps", "tp corr", "psth R2", "fp-bps"}
    assert set(ours[2]["mc_rtt_split"]) == {"co-bps", "vel R2", "fp-bps"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dataset", ["mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg"])
def test_many_random_files_equal_the_reference(dataset, seed):
    target, submitted = {dataset: targets(dataset, seed)}, {dataset: rates(dataset, seed)}
    agree(score.score(target, submitted), nlb_evaluate(target, submitted))


def nlb_evaluate(target: dict, submitted: dict) -> list:
    """The reference reads ``array[()]``, which arrays know too; it changes rates in place."""
    return nlb.evaluate(target, {g: {k: v.copy() for k, v in r.items()} for g, r in submitted.items()})


@pytest.mark.parametrize("dataset", ["mc_maze", "mc_rtt", "area2_bump"])
def test_trials_of_one_bin_equal_the_reference(dataset):
    target, submitted = targets(dataset, 1, n_bins=1), rates(dataset, 1, n_bins=1)
    for part in TRIALS:
        target[f"{part}_behavior"] = np.random.default_rng(5).normal(size=(TRIALS[part], 1, 2))
        target[f"{part}_behavior"][2] = np.nan
    agree(score.score({dataset: target}, {dataset: submitted}), nlb_evaluate({dataset: target}, {dataset: submitted}))


@pytest.mark.parametrize("where", ["targets", "submission"])
def test_without_forward_bins_on_either_side(where):
    target = {"mc_maze": targets("mc_maze", forward=where != "targets")}
    submitted = {"mc_maze": rates("mc_maze", forward=where != "submission")}
    ours = score.score(target, submitted)
    agree(ours, nlb_evaluate(target, submitted))
    assert "fp-bps" not in ours[0]["mc_maze_split"]


def test_degenerate_rates_equal_the_reference():
    """Constant rates, silent and duplicated predictors, a target that does not move."""
    target, submitted = targets("mc_maze", 3), rates("mc_maze", 3)
    for part in TRIALS:
        submitted[f"{part}_rates_heldin"][..., 0] = 0.25
        submitted[f"{part}_rates_heldin"][..., 1] = 0
        submitted[f"{part}_rates_heldin"][..., 2] = submitted[f"{part}_rates_heldin"][..., 3]
        target[f"{part}_behavior"][..., 1] = 0
    agree(
        score.score({"mc_maze": target}, {"mc_maze": submitted}),
        nlb_evaluate({"mc_maze": target}, {"mc_maze": submitted}),
    )


def test_blocks_of_any_size_make_the_same_score(monkeypatch, files):
    paths = files({g: (targets(d, 2), rates(d, 2)) for g, (d, b) in layout.OFFICIAL.items() if b == 5})
    whole = score.score(*paths)
    for module in (check, score):
        monkeypatch.setattr(module, "BLOCK", 1)
    arrays = np.zeros((18, 15, 3))
    assert len(list(row_blocks(arrays, 1))) == 18
    target, submitted = ({g: {k: v[()] for k, v in f[g].items()} for g in f} for f in map(h5py.File, paths))
    agree(score.score(target, submitted), whole)


@pytest.mark.parametrize("name", ["eval_rates_heldin", "eval_rates_heldout", "eval_rates_heldout_forward"])
def test_a_shift_by_one_bin_changes_every_score(name):
    """Scores of good rates fall when time slips by a bin: nothing averages over it."""
    target, submitted = {"mc_maze": targets("mc_maze", 4)}, {"mc_maze": rates("mc_maze", 4)}
    before = score.score(target, submitted)[0]["mc_maze_split"]
    submitted["mc_maze"][name] = np.roll(submitted["mc_maze"][name], 1, axis=1)
    after = score.score(target, submitted)[0]["mc_maze_split"]
    changed = {key for key in before if before[key] != after[key]}
    expected = {"eval_rates_heldin": {"vel R2", "psth R2"}, "eval_rates_heldout": {"co-bps", "vel R2", "psth R2"}}
    assert changed == expected.get(name, {"fp-bps"})


def test_datasets_outside_the_benchmark_are_scored_too():
    results = score.score({"lorenz": targets("mc_rtt")}, {"lorenz": rates("mc_rtt")})
    assert set(results[0]["lorenz_split"]) == {"co-bps", "vel R2", "fp-bps"}


def test_unscored_datasets_are_named(caplog):
    both = {"mc_rtt": rates("mc_rtt"), "mc_maze": rates("mc_maze")}
    assert len(score.score({"mc_rtt": targets("mc_rtt")}, both)) == 1
    assert "mc_maze" in caplog.text


def spoil(how: str, arrays: dict[str, np.ndarray]) -> None:
    """Makes a submission bad in one way."""
    name = "eval_rates_heldout"
    match how:
        case "NaN":
            arrays["train_rates_heldin"][3, 2, 1] = np.nan
        case "infinite":
            arrays[name][3, 2, 1] = np.inf
        case "negative":
            arrays["eval_rates_heldout_forward"][0, 0, 0] = -1e-3
        case "Hz":
            arrays[name] *= 200
        case "trials":
            arrays[name] = arrays[name][:-1]
        case "axes":
            arrays["eval_rates_heldin"] = arrays["eval_rates_heldin"].swapaxes(1, 2)
        case "neurons":
            arrays["eval_rates_heldin"], arrays[name] = arrays[name], arrays["eval_rates_heldin"]
        case "missing":
            del arrays["train_rates_heldout"]
        case "half a forward pair":
            del arrays["eval_rates_heldout_forward"]
        case "text":
            arrays[name] = arrays[name].astype("S8")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("NaN", r"train_rates_heldin: 1 rates .* not finite.*trial 3, bin 2, neuron 1"),
        ("infinite", r"eval_rates_heldout: 1 rates .* not finite"),
        ("negative", r"eval_rates_heldout_forward: 1 rates .* negative"),
        ("Hz", r"look like Hz: divide them by 200"),
        ("trials", r"eval_rates_heldout: the shape is \(17, 15, 3\), expected \(18, 15, 3\).*every trial"),
        ("axes", r"eval_rates_heldin: .*axes are in another order"),
        ("neurons", r"eval_rates_held.*: the shape is"),
        ("missing", r"train_rates_heldout missing"),
        ("half a forward pair", r"eval_rates_heldout_forward missing"),
        ("text", r"the values are .*expected numbers"),
    ],
)
def test_a_bad_submission_is_one_clear_error(how, message):
    submitted = rates("mc_maze")
    spoil(how, submitted)
    with pytest.raises(SubmissionError, match=message):
        score.score({"mc_maze": targets("mc_maze")}, {"mc_maze": submitted})


def damage_targets(how: str, target: dict[str, np.ndarray]) -> None:
    """Changes one array of a target group into an impossible one."""
    match how:
        case "count":
            target["eval_spikes_heldout"][0, 0, 0] = 0.5
        case "negative":
            target["eval_spikes_heldin_forward"][0, 0, 0] = -1
        case "infinite":
            target["train_behavior"][0, 0, 0] = np.inf
        case "trials":
            target["eval_behavior"] = target["eval_behavior"][1:]
        case "channels":
            target["eval_behavior"] = target["eval_behavior"][..., :1]
        case "axes":
            target["train_behavior"] = target["train_behavior"][:, 0]
        case "forward neurons":
            target["eval_spikes_heldout_forward"] = target["eval_spikes_heldout_forward"][..., 1:]
        case "one mask":
            del target["eval_decode_mask"]
        case "mask":
            target["eval_decode_mask"] = target["eval_decode_mask"] * 3
        case "psth":
            target["psth"] = target["psth"][..., :N_OUT]
        case "conditions":
            target["eval_cond_idx"] = target["eval_cond_idx"][1:]
        case "trial number":
            target["eval_cond_idx"][0] = np.array([TRIALS["eval"]])
        case "shift":
            target["eval_jitter"] = np.full(TRIALS["eval"], 16)
        case "shifts":
            target["eval_jitter"] = np.zeros(3, int)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("count", "eval_spikes_heldout holds 0.5, but spike counts are whole numbers"),
        ("negative", "eval_spikes_heldin_forward holds negative values"),
        ("infinite", "train_behavior holds infinite values"),
        ("trials", r"eval_behavior has the shape \(17, 15, 2\), but .* B = 18 as in eval_spikes_heldout"),
        ("channels", r"eval_behavior has the shape \(18, 15, 1\), but .* K = 2 as in train_behavior"),
        ("axes", "train_behavior must be behavior, training trials x bins x"),
        ("forward neurons", "eval_spikes_heldout_forward has the shape .* N = 3"),
        ("one mask", "eval_decode_mask is missing"),
        ("mask", "eval_decode_mask holds 3"),
        ("psth", "psth has 3 neurons, 3 are held out"),
        ("conditions", "eval_cond_idx has 3 conditions, but there are 4 PSTHs"),
        ("trial number", "eval_cond_idx holds 18, where trial numbers lie between 0 and 17"),
        ("shift", "eval_jitter holds shifts by more than the 15 bins"),
        ("shifts", r"eval_jitter has the shape \(3,\)"),
    ],
)
def test_impossible_targets_are_one_clear_error(how, message):
    target = targets("area2_bump")
    damage_targets(how, target)
    with pytest.raises(SubmissionError, match=f"^targets:/area2_bump.*{message}"):
        score.score({"area2_bump": target}, {"area2_bump": rates("area2_bump")})


def test_bad_files_are_one_clear_error(tmp_path, files):
    target, submission = files({"mc_rtt": (targets("mc_rtt"), rates("mc_rtt"))})
    with pytest.raises(SubmissionError, match=r"none\.h5: no such file"):
        score.score(target, tmp_path / "none.h5")
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(submission.read_bytes()[:500])
    with pytest.raises(SubmissionError, match=r"damaged\.h5 cannot be read"):
        score.score(target, damaged)
    with pytest.raises(SubmissionError, match=r"no dataset of .* is in it"):
        score.score(target, {"mc_maze": rates("mc_maze")})
    broken = targets("mc_rtt")
    del broken["train_behavior"]
    with pytest.raises(SubmissionError, match="train_behavior is missing"):
        score.score({"mc_rtt": broken}, submission)


def test_the_command_prints_a_table_and_saves_json(tmp_path, files, capsys):
    paths = files(
        {g: (targets(d), rates(d)) for g, (d, b) in layout.OFFICIAL.items() if g in ("mc_maze", "mc_maze_large")}
    )
    saved = tmp_path / "scores.json"
    assert score.main([*map(str, paths), "--json", str(saved)]) == 0
    agree(json.loads(saved.read_text()), score.score(*paths))
    lines = capsys.readouterr().out.splitlines()
    rows = {line.partition(" ")[0]: line for line in lines if line.startswith("mc_maze")}
    first, fifth = rows["mc_maze_split"], rows["mc_maze_scaling_split"]
    assert lines.index(fifth) - lines.index(first) == 4 and lines.index(fifth) == len(lines) - 4
    assert f"{json.loads(saved.read_text())[0]['mc_maze_split']['co-bps']:.4f}" in first and "[500] co-bps" in fifth


def test_the_command_reports_an_error_without_a_traceback(tmp_path, capsys):
    assert score.main([str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_undefined_scores_are_null_in_json(tmp_path, files):
    target = targets("mc_maze")
    target["eval_behavior"][:] = np.nan
    paths = files({"mc_maze": (target, rates("mc_maze"))})
    assert score.main([*map(str, paths), "--json", str(tmp_path / "s.json")]) == 0
    assert score.main([*map(str, paths), "--json", str(tmp_path / "s.json" / "t.json")]) == 1  # below a file
    assert json.loads((tmp_path / "s.json").read_text())[0]["mc_maze_split"]["vel R2"] is None
