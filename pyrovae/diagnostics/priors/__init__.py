"""What is wrong with a prior, seen from the codes of the data."""
