"""What a run leaves, and what is shown of it."""
