"""Antolik V1: mouse V1 and natural images (Antolik et al. 2016), from files to batches."""
