"""The KL to the prior taken apart over a whole data set, and the dimensions that carry it."""
