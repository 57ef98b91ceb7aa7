"""A recording that is played over a socket, and a model that streams it: the experiment without the animal."""
