"""The experiment: every combination of what is swapped, fitted from several seeds, in one table."""
