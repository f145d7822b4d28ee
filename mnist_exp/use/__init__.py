"""Trained models in use: load, predict, export and draw; and runs in the process of a script or notebook."""
