"""What data must be before they are used: arrays, times, duplicate units, windows that share time."""
