"""report.html."""
from pathlib import Path
from typing import Any


def page(record: Any, notebook: Path) -> str:
    """The page."""
    return "<!doctype html><html></html>"


def warm_up() -> None:
    """Import what page() needs."""
    import nbconvert  # noqa: F401
