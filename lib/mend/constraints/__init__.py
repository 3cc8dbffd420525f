"""What breaks a constraint, the ways out, and how it is made without blocking."""
