"""Pages to look at: what a run, a sweep or several runs are and what came out, as one HTML file each."""
