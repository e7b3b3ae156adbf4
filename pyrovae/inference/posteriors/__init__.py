"""The posterior of one datum as exactly as can be: a grid, NUTS, or resampled draws."""
