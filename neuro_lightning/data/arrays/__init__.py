"""Recordings that somebody has as arrays: spike counts, calcium traces, or images and the responses to them."""
