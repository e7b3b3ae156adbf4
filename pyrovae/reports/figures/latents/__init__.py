"""Figures of the latent space: where data lie in it, and what the model makes over it."""
