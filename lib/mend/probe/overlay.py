"""Revision files as they would be: texts that alembic reads in place of what lies on disk, before anybody writes them."""

from __future__ import annotations

import os
import types
from pathlib import Path

from alembic import util
from alembic.script.base import Script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Optional


def lay(texts: Mapping[str, Optional[str]]) -> None:
    """Have alembic read these texts, by absolute path; a path that is not there is added to its directory, None hides a file."""
    laid = {os.path.realpath(path): text for path, text in texts.items()}
    listed = Script._list_py_dir.__func__  # type: ignore[attr-defined]
    load = util.load_python_file

    def _list_py_dir(cls: Any, scriptdir: Any, path: Any) -> list[Any]:
        here = os.path.realpath(path)
        there = [one for one in listed(cls, scriptdir, path) if laid.get(os.path.realpath(one), "") is not None]
        known = {os.path.realpath(one) for one in there}
        new = [
            one for one, text in laid.items() if text is not None and one not in known and str(Path(one).parent) == here
        ]
        return there + [type(path)(one) for one in sorted(new)]

    def load_python_file(directory: Any, filename: Any) -> Any:
        path = os.path.realpath(Path(str(directory), str(filename)))
        text = laid.get(path)
        if text is None:
            return load(directory, filename)
        module = types.ModuleType(Path(path).stem)
        module.__file__ = path
        exec(compile(text, path, "exec"), module.__dict__)
        return module

    Script._list_py_dir = classmethod(_list_py_dir)  # type: ignore[assignment]
    util.load_python_file = load_python_file  # type: ignore[assignment]
