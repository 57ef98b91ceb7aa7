"""Building blocks of networks, plain torch."""
