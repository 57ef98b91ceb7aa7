"""Lightning callbacks: checkpoints, seeds, step times, progress, figures."""
