"""From the spike times, trials and series of any file to binned trials: what all formats of spike times share."""
