"""The gap between evidence and ELBO, taken apart: approximation, amortization, and what a richer guide would buy."""
