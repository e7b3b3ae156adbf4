"""What makes log w the weight of a draw; a pair that breaks it is refused by site and cause."""
