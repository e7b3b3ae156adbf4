"""Guides that are more than a family: encoders of several latents, each drawn given the data and those before it."""
