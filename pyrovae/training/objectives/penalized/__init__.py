"""Objectives that are not the ELBO: its terms weighted, floored, or with a penalty beside them."""
