"""The Neural Latents Benchmark: from its NWB files to tensors, targets and PSTHs."""
