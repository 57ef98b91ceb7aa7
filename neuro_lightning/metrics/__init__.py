"""Metrics as sums: exact however trials are cut into batches and shared among processes."""
