"""Annealed importance sampling and bounds from both sides, for any pair with continuous latents."""
