"""Where a database is not what its history makes, whose that is, and the ways back."""
