"""What a pair says of classes: how often it is right, and how far its probabilities are to be trusted."""
