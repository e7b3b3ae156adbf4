"""Discrete latents of small support: all their values, and a pair run at each of them."""
