"""What lies on disk: files written in one piece, and locks on folders."""
