"""Evidence side by side: pairs on the same data, and several fits of each."""
