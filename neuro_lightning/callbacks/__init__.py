"""What happens around a training: checkpoints, seeds, step times, progress, figures."""
