"""Is the guide the posterior? Ranks of the truth among draws, on data simulated from the model."""
