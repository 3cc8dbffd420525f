"""What each statement of a revision does, which of them ran, and what a whole history makes."""
