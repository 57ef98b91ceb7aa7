"""Any NWB file with units and trials, from the file to batches."""
