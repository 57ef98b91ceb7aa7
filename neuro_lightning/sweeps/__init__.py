"""Many runs as one: the table of a sweep."""
