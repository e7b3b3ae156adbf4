"""Codes of data: how they lie, and what is decoded from between them."""
