"""Searches settings: commas, range and glob compare; interval and choice tune inside each arm."""
