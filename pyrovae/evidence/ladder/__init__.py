"""Proposals that are fitted to each datum until importance sampling from them can be trusted."""
