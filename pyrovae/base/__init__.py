"""What every folder needs, and what knows neither a program nor data."""
