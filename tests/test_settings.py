"""mend.toml: validated, found from below, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from mend import settings
from mend.errors import InvalidParameter


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mend.toml in the current folder, to be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEND_OUTPUTS", raising=False)
    return tmp_path / "mend.toml"


def test_no_file_is_the_same_as_an_empty_one(toml: Path) -> None:
    without = settings.load()
    toml.write_text("")
    assert settings.load().targets == without.targets == {}


def test_three_lines_name_a_project(toml: Path) -> None:
    toml.write_text('[targets.shop]\nurl = "env:SHOP_URL"\nalembic_ini = "backend/alembic.ini"\n')
    shop = settings.load().targets["shop"]
    assert shop.url == "env:SHOP_URL"
    assert shop.alembic_ini == toml.parent / "backend" / "alembic.ini"
    assert (shop.schema_name, shop.lock_timeout_ms, shop.scratch) == ("mend", 2000, "")


def test_the_nearest_file_above_is_in_force(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('[targets.above]\nurl = "service:above"\n')
    below = toml.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert list(settings.load().targets) == ["above"]
    (below / "mend.toml").write_text('[targets.below]\nurl = "service:below"\n')
    assert list(settings.load().targets) == ["below"]


def test_a_named_file_goes_before_any_other(toml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toml.write_text('[targets.here]\nurl = "service:here"\n')
    other = tmp_path / "other.toml"
    other.write_text('[targets.there]\nurl = "service:there"\n')
    monkeypatch.setenv("MEND_CONFIG", str(other))
    assert list(settings.load().targets) == ["there"]


def test_a_changed_file_is_read_again(toml: Path) -> None:
    toml.write_text('[targets.one]\nurl = "env:A"\n')
    settings.load()
    toml.write_text('[targets.another]\nurl = "env:A"\n')
    assert list(settings.load().targets) == ["another"]


def test_a_python_that_is_a_link_stays_a_link(toml: Path) -> None:
    """A virtual environment's interpreter is a link; its target knows nothing of the environment."""
    (toml.parent / "python").symlink_to("/usr/bin/env")
    toml.write_text('[targets.a]\nurl = "env:A"\npython = "python"\n')
    assert settings.load().targets["a"].python == toml.parent / "python"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[targets.a]\nurl = "postgresql://ann:s3cret@db/shop"\n', "targets.a.url"),
        ('[targets.a]\nurl = "env:A"\nscratch = "host=x password=s3cret"\n', "targets.a.scratch"),
        ('[targets.a]\nurl = "env:A"\nalembic = "x"\n', "targets.a.alembic"),
        ('[targets.a]\nurl = "env:A"\nlock_timeout_ms = 0\n', "targets.a.lock_timeout_ms"),
        ('[targets.a]\nurl = "env:A"\nlock_timeout_ms = "soon"\n', "targets.a.lock_timeout_ms"),
        ("[targets.a]\n", "targets.a.url"),
        ("[target.a]\n", "target"),
        ("[targets.a\n", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_wrong_file_names_the_key_and_shows_no_secret(toml: Path, text: str, named: str) -> None:
    toml.write_text(text)
    with pytest.raises(InvalidParameter) as raised:
        settings.load()
    assert named in raised.value.message
    assert str(toml) in raised.value.message
    assert "s3cret" not in raised.value.message


def test_a_named_file_that_is_not_there_is_an_error(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEND_CONFIG", str(toml.parent / "gone.toml"))
    with pytest.raises(InvalidParameter, match=r"gone\.toml cannot be read"):
        settings.load()


def test_outputs_come_from_the_environment_then_the_file_then_here(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.outputs() == toml.parent / "outputs"
    toml.write_text('outputs = "records"\n')
    assert settings.outputs() == toml.parent / "records"
    monkeypatch.setenv("MEND_OUTPUTS", str(toml.parent / "elsewhere"))
    assert settings.outputs() == toml.parent / "elsewhere"


def test_home_is_the_named_one_else_the_platforms(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEND_HOME", str(toml.parent / "home"))
    assert settings.home() == toml.parent / "home"
    monkeypatch.delenv("MEND_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(toml.parent / "data"))
    assert settings.home().name == "mend"


def test_a_home_that_cannot_be_written_names_the_variable(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEND_HOME", str(toml.parent / "home"))
    assert settings.made_home("lab").is_dir()
    (toml.parent / "file").write_text("")
    monkeypatch.setenv("MEND_HOME", str(toml.parent / "file" / "home"))
    with pytest.raises(InvalidParameter, match=r"cannot be written: .*Set MEND_HOME"):
        settings.made_home("lab")
