"""Draws of what is not known: z given x."""
