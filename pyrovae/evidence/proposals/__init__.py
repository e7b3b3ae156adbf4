"""Proposals to draw latents from, where the guide itself will not do."""
