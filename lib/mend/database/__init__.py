"""Connections, questions, the catalog as rows."""
