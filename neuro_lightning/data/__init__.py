"""From files to batches: readers, simulators and one data module for each family of datasets."""
