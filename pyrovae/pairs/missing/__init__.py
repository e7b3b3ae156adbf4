"""Missing entries of what a model observes: left out of its density, and drawn where they are asked for."""
