"""What a person sees of a run: tables and figures."""
