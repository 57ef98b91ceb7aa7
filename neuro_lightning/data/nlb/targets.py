"""The benchmark's own tensors, under its own key names, made from a :class:`Recording`.

Input tensors are what a model may see (``train_spikes_heldin``, ...), the target group what predictions are scored
against. Both are views of the recording that our data modules serve, so the two cannot drift apart.
"""

from __future__ import annotations

import numpy as np

from neuro_lightning.data.nlb.params import group_name
from neuro_lightning.data.recording import Recording, Trials


def supplied_trials(recording: Recording) -> tuple[Trials, Trials]:
    """The trials that the recording's phase trains on and predicts, in the benchmark's order.

    In phase ``test`` train and val are one, in the order of the trial table.
    """
    splits = recording.splits
    if recording.info["phase"] == "val":
        return splits["train"], splits["val"]
    order = np.argsort(np.concatenate([splits["train"].row, splits["val"].row]), kind="stable")
    return splits["train"].joined(splits["val"]).take(order), splits["test"]


def input_tensors(recording: Recording) -> dict[str, np.ndarray]:
    """What a model may be trained on and given, as ``make_train_input_tensors`` and ``make_eval_input_tensors`` do.

    Returns:
        ``train_spikes_heldin`` (B, T, N_in), ``train_spikes_heldout`` (B, T, N_out), ``train_behavior`` (B, T, K) or
        (B, K), ``train_spikes_heldin_forward`` and ``train_spikes_heldout_forward`` (B, F, ...),
        ``eval_spikes_heldin``, and in phase ``val`` ``eval_spikes_heldout``; counts as they are in the recording.
    """
    train, evaluated = supplied_trials(recording)
    tensors = {
        "train_spikes_heldin": train.heldin,
        "train_spikes_heldout": train.heldout,
        "train_behavior": train.behavior,
        "train_spikes_heldin_forward": train.heldin_forward,
        "train_spikes_heldout_forward": train.heldout_forward,
        "eval_spikes_heldin": evaluated.heldin,
        "eval_spikes_heldout": evaluated.heldout,
    }
    return {key: value for key, value in tensors.items() if value is not None}


def target_group(recording: Recording) -> dict[str, np.ndarray | list[np.ndarray]]:
    """What predictions are scored against, as ``make_eval_target_tensors(include_psth=True)`` does.

    In phase ``test`` only the training trials' side is there: the labels of the test trials are not in the files.

    Returns:
        ``eval_spikes_heldout`` (B, T, N_out), NaN where it is not scored; ``train_behavior``, ``eval_behavior``;
        ``eval_spikes_heldin_forward``, ``eval_spikes_heldout_forward``; where the dataset has them,
        ``train_decode_mask`` and ``eval_decode_mask`` (B, M), ``psth`` (C, T, N), ``train_cond_idx`` and
        ``eval_cond_idx`` (a list with the trials of each condition), ``train_jitter`` and ``eval_jitter`` (B,).
    """
    train, evaluated = supplied_trials(recording)
    group = {
        "eval_spikes_heldout": _scored_spikes(evaluated),
        "eval_spikes_heldin_forward": evaluated.heldin_forward,
        "eval_spikes_heldout_forward": evaluated.heldout_forward,
        "psth": recording.psth,
    }
    for side, trials in {"train": train, "eval": evaluated}.items():
        if trials.heldout is None:
            continue
        group[f"{side}_behavior"] = trials.behavior
        group[f"{side}_decode_mask"] = trials.decode_mask
        if recording.psth is not None and trials.condition is not None:
            group[f"{side}_cond_idx"] = [np.flatnonzero(trials.condition == c) for c in range(len(recording.psth))]
            group[f"{side}_jitter"] = trials.jitter
    return {key: value for key, value in group.items() if value is not None}


def _scored_spikes(trials: Trials) -> np.ndarray | None:
    if trials.heldout is None or trials.scored is None:
        return trials.heldout
    return np.where(trials.scored[:, :, None], trials.heldout, np.float32(np.nan))


def official_tensors(recording: Recording) -> dict[str, np.ndarray | dict]:
    """The benchmark's input tensors and, under ``mc_rtt`` or ``mc_rtt_20``, its target group.

    Args:
        recording: from :func:`neuro_lightning.data.nlb.reader.load_nlb`.

    Returns:
        :func:`input_tensors`, and one group more: :func:`target_group` under the dataset's group name.
    """
    return {**input_tensors(recording), group_name(recording.name, recording.bin_ms): target_group(recording)}
