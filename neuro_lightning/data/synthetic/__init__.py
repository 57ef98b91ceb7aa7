"""Simulated recordings of dynamical systems, with known rates."""
