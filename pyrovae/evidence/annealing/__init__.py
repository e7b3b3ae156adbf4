"""Annealed importance sampling, and bounds on log p(x) from both sides."""
