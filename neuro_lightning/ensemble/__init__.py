"""Several models as one: which members, how much of each, and what that has gained."""
