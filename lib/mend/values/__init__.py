"""May this be written, how many rows are there, what may be shown."""
