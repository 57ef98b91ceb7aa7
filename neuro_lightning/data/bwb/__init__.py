"""IBL BrainWideBench, its task suite TS2: neural activity predicted from neural activity."""
