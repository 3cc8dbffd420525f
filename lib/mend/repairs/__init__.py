"""From states to steps and their way back."""
