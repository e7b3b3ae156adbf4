"""Objectives for the guide alone, whose gradients leave the model as it is."""
