"""Programs that do the same work, each in a process of its own, timed in turns."""
