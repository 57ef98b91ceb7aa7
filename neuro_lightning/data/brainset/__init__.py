"""brainsets files, from the file to batches, and their simulated twin."""
