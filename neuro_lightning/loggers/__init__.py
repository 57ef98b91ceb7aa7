"""Loggers of a run, and Weights & Biases."""
