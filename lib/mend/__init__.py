"""mend: runbooks for broken PostgreSQL migrations."""

__version__ = "0.1.0"
