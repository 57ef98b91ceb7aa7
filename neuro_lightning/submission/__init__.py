"""The benchmark's files: names, checks, writing and scoring."""
