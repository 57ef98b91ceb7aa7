"""Metrics as sums: exact however trials are cut into batches and shared among processes."""

from neuro_lightning.metrics.collection import MetricSet, build_metrics

__all__ = ["MetricSet", "build_metrics"]
