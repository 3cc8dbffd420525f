"""One failure mode each: ``diagnose()`` reads, ``plan()`` is pure."""
