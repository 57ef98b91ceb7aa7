"""Scores of the behavior that heads decode, beside the other metrics of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.functional.correlation import r2_from_sums, variation
from neuro_lightning.metrics.base import MetricDict, MetricGroup, SumMetric, finite_or_nan, register_constant
from neuro_lightning.nn.heads import Head, Heads


class DecodedR2(SumMetric):
    """R2 of decoded behavior, mean over channels, and over groups of trials with the same weight.

    It is of the bins that the ridge decoder is scored on, see :class:`~neuro_lightning.metrics.decoding.VelocityR2`.

    Args:
        mean: (K,) about the mean of each channel; it is subtracted for the sake of precision and changes no score.
        n_groups: groups of trials M that are scored apart.
    """

    mean: Tensor
    count: Tensor
    total: Tensor
    squares: Tensor
    residual: Tensor

    def __init__(self, mean: Tensor, n_groups: int = 1) -> None:
        super().__init__()
        register_constant(self, "mean", mean.detach().clone())
        self.add_sum("count", n_groups, 1)
        for name in ("total", "squares", "residual"):
            self.add_sum(name, n_groups, len(mean))

    def update(self, decoded: Tensor, behavior: Tensor, used: Tensor) -> None:
        """Adds entries.

        Args:
            decoded: (n, K).
            behavior: (n, K), anything where it is not used.
            used: (n, M) bool, the entries of each group.
        """
        used = used.T[..., None]
        target = torch.where(used, behavior.double() - self.mean, 0.0)
        error = torch.where(used, decoded.double() - behavior.double(), 0.0)
        self.count = self.count + used.sum(1)
        self.total, self.squares = self.total + target.sum(1), self.squares + target.square().sum(1)
        self.residual = self.residual + error.square().sum(1)

    def compute(self) -> Tensor:
        """The score, a scalar; NaN where a group has fewer than two entries or a decoded value is not finite."""
        r2 = r2_from_sums(self.residual, variation(self.count, self.total, self.squares), self.squares)
        return finite_or_nan(torch.where(self.count >= 2, r2, torch.nan).mean())


class DecodedClass(SumMetric):
    """The share of trials whose class is decoded, and that of the most frequent class, which needs no neurons.

    Args:
        n_classes: C.
    """

    right: Tensor
    trials: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_sum("right")
        self.add_sum("trials", n_classes)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds trials: logits (B, C) and classes (B,) int64, -1 where a trial is not scored.

        A trial whose logits are not finite is decoded wrongly.
        """
        known = target >= 0
        target, logits = target[known], logits[known]
        self.right = self.right + ((logits.argmax(1) == target) & logits.isfinite().all(1)).sum()
        self.trials = self.trials + torch.bincount(target, minlength=self.n_classes)

    def compute(self) -> Tensor:
        """(2,) accuracy and chance, NaN without trials."""
        return torch.stack([self.right, self.trials.max()]) / self.trials.sum()


class WithHeads(MetricGroup):
    """The metrics of a dataset, and the scores of a model's heads.

    ==========================  =====================================================================================
    ``head_NAME_r2``            R2 of behavior in bins, or of a number of each trial; mean over channels
    ``head_NAME_accuracy``      share of the trials whose class is decoded
    ``head_NAME_chance``        share of the most frequent class among these trials
    ==========================  =====================================================================================

    Trials of unknown behavior, or of a class that no training trial has, are not scored.

    Args:
        others: the metrics of the dataset, see :func:`neuro_lightning.metrics.collection.build_metrics`.
        heads: of the model.
        spec: the description of the recording.
    """

    others: Any  # whose methods the type of a module does not tell
    metrics: MetricDict

    def __init__(self, others: nn.Module, heads: Heads, spec: DataSpec) -> None:
        super().__init__()
        self.others, self.spec = others, spec
        self.heads = {head.name: head for head in heads}  # in a dictionary: no part of this module
        self.metrics = MetricDict({name: metric_of(head, spec) for name, head in self.heads.items()})

    @property
    def names(self) -> list[str]:
        """The keys of what :meth:`compute` returns."""
        return [*self.others.names, *(score for head in self.heads.values() for score in score_names(head))]

    @property
    def needs_train(self) -> bool:
        """Whether the metrics of the dataset learn from training trials; heads have done so."""
        return self.others.needs_train

    @torch.no_grad()
    def update(self, output: Output, batch: Batch) -> None:
        """Adds evaluation trials; heads of which the output does not have a value are not scored."""
        self.others.update(output, batch)
        for name, decoded in output.get("heads", {}).items():
            head, metric = self.heads[name], self.metrics[name]
            if ("behavior" if head.settings.kind == "linear" else "labels") not in batch:  # of another file
                continue
            target = head.target(batch, self.spec)
            if head.settings.kind == "class":
                metric.update(decoded, target)
            elif head.settings.kind == "number":
                metric.update(decoded[:, None], target[:, None], target.isfinite()[:, None])
            else:
                used = batch["decode_fold"] >= 0
                metric.update(*(values.flatten(0, 1) for values in (decoded, target, used)))

    def update_train(self, output: Output, batch: Batch) -> None:
        """Adds training trials, from which the metrics of the dataset may learn."""
        self.others.update_train(output, batch)

    def compute(self) -> dict[str, float]:
        """All scores by name, NaN where one is undefined."""
        scores = self.others.compute()
        for name, head in self.heads.items():
            values = self.metrics[name].compute().reshape(-1).tolist()
            scores |= dict(zip(score_names(head), values, strict=True))
        return scores

    def reset(self) -> None:
        """Forgets all trials."""
        self.others.reset()
        super().reset()


def score_names(head: Head) -> list[str]:
    """What the scores of a head are called; the first one chooses where heads alone are trained."""
    return head_scores(head.name, head.settings.kind)


def head_scores(name: str, kind: str) -> list[str]:
    """What the scores of a head are called, by its name and kind.

    Example:
        >>> head_scores("choice", "class"), head_scores("velocity", "linear")
        (['head_choice_accuracy', 'head_choice_chance'], ['head_velocity_r2'])
    """
    return [f"head_{name}_{score}" for score in (["accuracy", "chance"] if kind == "class" else ["r2"])]


def metric_of(head: Any, spec: DataSpec) -> SumMetric:
    """The metric of a head on a recording."""
    if head.settings.kind == "class":
        return DecodedClass(len(head.classes))
    return DecodedR2(head.mean, spec.decode_groups if head.settings.kind == "linear" else 1)
