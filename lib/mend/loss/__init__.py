"""What runs, how far it is in a transaction that nobody else sees into, when it ends, and how the same is done in batches."""
