"""Latents of trained models: embeddings, pictures, and how many dimensions the data need."""
