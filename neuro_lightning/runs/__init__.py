"""One run from its settings to its scores: training, resuming, the final fit, prediction."""
