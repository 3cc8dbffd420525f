"""The ``mend`` command."""
