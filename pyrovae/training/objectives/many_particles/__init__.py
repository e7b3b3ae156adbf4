"""Bounds that weigh several particles of each datum against each other."""
