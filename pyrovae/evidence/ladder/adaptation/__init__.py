"""How a proposal comes near the posterior of each datum: by slopes, by moments of draws, by modes and their mirrors."""
