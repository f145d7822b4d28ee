"""Trained models in use: load, predict, export and draw."""
