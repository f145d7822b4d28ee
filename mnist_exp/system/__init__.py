"""The operating system: signals, files, processes, streams, and errors."""
