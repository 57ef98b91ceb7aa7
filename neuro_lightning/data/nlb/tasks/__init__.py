"""Simulated tasks of the benchmark: behavior, latent variables and spikes."""
