"""How a pair is written: programs, priors, families, networks, and pairs whose evidence is known."""
