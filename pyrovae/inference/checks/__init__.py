"""Does the model make data like these? Replicated data, statistics and randomised PIT."""
