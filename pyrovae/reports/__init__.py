"""What was measured, shown: text, figures, pages."""
