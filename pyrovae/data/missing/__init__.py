"""What is missing of data: entries hidden by a mask, and masks that are drawn by each mechanism."""
