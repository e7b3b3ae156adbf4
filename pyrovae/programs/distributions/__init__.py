"""Distributions with faster or more stable densities than torch has."""
