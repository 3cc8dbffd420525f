"""Where mend keeps things, and mend.toml: the targets an operator has named.  No secret is ever stored in it."""

from __future__ import annotations

import errno
import os
import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mend.errors import InvalidParameter

_FORMS = ("env:", "service:")


class TargetSettings(BaseModel):
    """One ``[targets.<name>]`` table of mend.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="env:NAME or service:NAME; never the address itself")
    alembic_ini: Path | None = None
    python: Path | None = None
    scratch: str = Field("", description="env:NAME or service:NAME of a server to replay on, or 'target'")
    base: Path | None = Field(None, description="SQL dump to start the replay from, for histories without a beginning")
    base_revision: str = ""
    schema_name: str = Field("mend", alias="schema", description="where undo data lives on the target")
    lock_timeout_ms: int = Field(2000, ge=1, le=600_000)
    statement_timeout_ms: int = Field(3_600_000, ge=1)

    @field_validator("url", "scratch")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value and value not in ("target", "lab") and not value.startswith(_FORMS):
            raise ValueError("write env:NAME or service:NAME; an address here would end up in records")
        return value


class Settings(BaseModel):
    """mend.toml as a whole; an absent file is the same as an empty one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[str, TargetSettings] = {}
    outputs: Path | None = None
    path: Path | None = Field(None, exclude=True)


def home() -> Path:
    """Lab, caches and scratch servers: $MEND_HOME, else the platform's data directory."""
    if named := os.environ.get("MEND_HOME"):
        return Path(named).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("mend")


def made_home(name: str) -> Path:
    """A folder of ``home()`` that can be written to, made if it is not there.

    Raises: InvalidParameter naming MEND_HOME.
    """
    path = home() / name
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InvalidParameter(
            f"{path} cannot be written: {error.strerror}. Nothing was changed. Set MEND_HOME to a folder that can; mend keeps "
            "its practice database, its scratch servers and its caches there."
        ) from error
    return path


def outputs() -> Path:
    """Records: $MEND_OUTPUTS, else ``outputs`` of mend.toml, else ./outputs."""
    if named := os.environ.get("MEND_OUTPUTS"):
        return Path(named).expanduser().resolve()
    return (load().outputs or Path("outputs")).resolve()


def find(start: Path | None = None) -> Path | None:
    """The mend.toml in force: $MEND_CONFIG, else the nearest one here or above."""
    if named := os.environ.get("MEND_CONFIG"):
        return Path(named).expanduser().resolve()
    here = (start or Path.cwd()).resolve()
    return next((p / "mend.toml" for p in (here, *here.parents) if (p / "mend.toml").is_file()), None)


def load(start: Path | None = None) -> Settings:
    """Read and validate mend.toml; paths in it are relative to it.

    Raises: InvalidParameter naming the file and the key that is wrong.
    """
    path = find(start)
    return _read(path, path.stat().st_mtime_ns if path and path.exists() else 0) if path else Settings()


@cache
def _read(path: Path, _mtime: int) -> Settings:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = Settings.model_validate({**raw, "path": path})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidParameter(
            f"{path} cannot be read: {error}. Nothing was changed. Correct it and run again."
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidParameter(
            f"{path} is not valid: {wrong}. Nothing was changed. Correct it and run again."
        ) from error
    return _absolute(settings, path.parent)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """The same settings with every path made absolute against the file's folder."""

    def fix(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(folder / path.expanduser()))  # noqa: PTH100 a venv's python is a link: keep it

    targets = {
        name: t.model_copy(update={key: fix(getattr(t, key)) for key in ("alembic_ini", "python", "base")})
        for name, t in settings.targets.items()
    }
    return settings.model_copy(update={"targets": targets, "outputs": fix(settings.outputs)})
