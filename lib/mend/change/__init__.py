"""From a catalog difference to SQL, its locks, its costs and what must be kept before it."""
