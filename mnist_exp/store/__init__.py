"""The files of runs and sweeps: names, fields, reading and writing. Nothing here needs torch."""
