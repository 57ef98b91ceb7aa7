"""Searches on Ray Tune: populations, halving, and the trials that workers train from milestone to milestone."""
