"""How to fit and measure any pair of programs; nothing here knows how they were written."""
