"""Experiments on neural population data: datasets x models x trainers, composed by Hydra, run by Lightning."""

__version__ = "0.1.0"
