"""The explorer: what a page needs to decode live, read from programs; or computed beforehand where it cannot."""
