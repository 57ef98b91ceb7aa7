"""Simulated recordings: spikes with known rates, and twins of the benchmark's files."""
