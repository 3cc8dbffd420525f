"""Start of the probe in the project's interpreter, where mend itself is not installed, or is another one."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path


def load() -> types.ModuleType:
    """The probe's modules, and no trace of them in what the project can import.

    The directory of this file must not stand on sys.path (the project may have a `recorder` of its own), and `mend` must
    not be taken (the project may use mend); mend/__init__.py is never run.
    """
    here = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]
    mend = types.ModuleType("mend")
    mend.__path__ = [str(here.parent)]
    sys.modules["mend"] = mend
    actions = importlib.import_module("mend.probe.actions")
    for name in [name for name in sys.modules if name.split(".")[0] == "mend"]:
        del sys.modules[name]
    return actions


if __name__ == "__main__":
    load().main()
