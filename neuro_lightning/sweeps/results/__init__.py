"""The results of a sweep: its table and page, the importance of its keys, its best setting as an experiment."""
