"""What people start: the command line, runs and recipes, the demonstration."""
