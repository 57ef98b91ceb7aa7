"""h5 files in the style of LFADS, lfads-torch and NDT."""
