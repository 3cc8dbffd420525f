"""Many rows changed in short batches, beside the application, and given back."""
