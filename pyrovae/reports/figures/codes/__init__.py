"""Figures of codes: how they lie, what lies between them, and the steps by which they were found."""
