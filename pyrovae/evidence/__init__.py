"""log p(x) of any pair, datum by datum, and how far to trust it."""
