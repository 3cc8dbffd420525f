"""A history beside one database, what branches do to each other, and the ways out."""
