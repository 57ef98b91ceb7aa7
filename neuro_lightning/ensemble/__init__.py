"""Averages several models: finds the members, selects and weights them, and measures the gain."""
