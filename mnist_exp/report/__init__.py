"""Reads finished and unfinished sweeps, and reports on them. Nothing here runs or needs torch."""
