"""What a sweep came to: its table and page, what mattered in it, and its best setting as an experiment."""
