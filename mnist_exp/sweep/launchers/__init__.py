"""Launchers: the ways to run the jobs of a sweep."""
