"""Show something in the notebook, and remember which cell showed it.

The record's notebook is normally the executed file.  Under plain papermill and in JupyterLab the kernel does not know that
file, so what its cells showed is kept here, and the record's notebook is put together from it.
"""

from __future__ import annotations

from typing import Any

_shown: dict[int, list[dict[str, str]]] = {}


def start() -> None:
    """Begin a new run in this kernel."""
    _shown.clear()


def display(shown: Any) -> None:
    """Show a fragment (HTML with its text twin) or a widget in the current cell; outside a notebook, print its text."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        print(shown)
        return
    from IPython.display import display as show

    show(shown)
    if bundle := _bundle(shown):
        # Not shell.execution_count: some versions of IPython count a cell before it runs, others after.
        _shown.setdefault(len(shell.user_ns["In"]) - 1, []).append(bundle)


def _bundle(shown: Any) -> dict[str, str]:
    """The fragment as mime types; a widget has none, because a record must not depend on one."""
    html = getattr(shown, "html", None)
    return {"text/html": str(html), "text/plain": str(getattr(shown, "text", ""))} if html is not None else {}


def cells() -> list[tuple[str, list[dict[str, str]]]]:
    """(source, outputs) of every code cell that ran in this kernel, in order."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    sources = list(shell.user_ns.get("In", [])) if shell is not None else []
    return [(source, _shown.get(n, [])) for n, source in enumerate(sources) if source]
