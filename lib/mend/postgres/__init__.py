"""A private PostgreSQL on this machine: for the lab, scratch and tests."""
