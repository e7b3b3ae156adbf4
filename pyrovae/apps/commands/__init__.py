"""Commands that need no run: what can be chosen by name, and a file to begin with."""
