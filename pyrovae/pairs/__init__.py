"""How any pair of programs is run: the only folder that reads traces."""
