"""Transforms of draws."""
