"""Steps run, journaled, resolved after a crash, taken back."""
