"""fit: Pyro's SVI on any pair of programs."""
