"""How to write a pair of programs; nothing here knows about inference."""
