"""A package of somebody else adds a type of provider by an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dropscribe.config import system_checks
from dropscribe.config.load import parse_config
from dropscribe.config.system_checks import system_problems
from dropscribe.core.errors import ConfigError, ProviderUnusable
from dropscribe.providers.base import JobProvider
from dropscribe.providers.build import build_provider

TEXT = (
    "providers: {mine: {type: theirs, url: 'http://127.0.0.1:1/', params: {a: 1}}}\n"
    "folders: {f: {inbox: /srv/in, provider: mine}}\n"
)
MODULE = "def build(config):\n    return ('built', config.url, config.params)\n"
VENDOR = """\
from dropscribe.providers.vendor import Vendor
class Theirs(Vendor):
    def upload(self, audio, params): ...
    def transcript(self, parsed, params): ...
build = Theirs.build
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with the type `theirs`."""
    (tmp_path / "their_provider.py").write_text(MODULE)
    facts = tmp_path / "their_provider-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-provider\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[dropscribe.providers]\ntheirs = their_provider:build\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("their_provider", None)


@pytest.mark.usefixtures("package")
def test_an_installed_type_is_accepted_and_built():
    """With the keys that all providers have, a url and a key."""
    config, _ = parse_config(TEXT, folder=Path("/srv"), environ={})
    assert build_provider(config.providers["mine"]) == ("built", "http://127.0.0.1:1/", {"a": 1})


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("module", "words", "is_found_by_check"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", True),
        ("import sys\nsys.exit('no licence')\n", "SystemExit: no licence", True),
        ("class Panic(BaseException): ...\nraise Panic('at lib.rs:3')\n", "Panic: at lib.rs:3", True),
        ("", "AttributeError: module 'their_provider' has no attribute 'build'", True),
        ("def build(config):\n    raise ValueError('no such\\nplan')\n", "ValueError: no such plan", False),
    ],
)
async def test_a_package_that_is_broken_holds_its_provider(tmp_path, module, words, is_found_by_check):
    """The daemon starts, other providers work, and jobs of the package are kept."""
    (tmp_path / "their_provider.py").write_text(module)
    config, _ = parse_config(TEXT, folder=Path("/srv"), environ={})
    provider = build_provider(config.providers["mine"])
    for asked in (provider.probe(), provider.transcribe(None, {}), provider.start_job(None, {})):
        with pytest.raises(ProviderUnusable) as held:
            await asked
        assert held.value.reason == f"the package of type theirs cannot be used: {words}"
    assert isinstance(provider, JobProvider)
    assert (await provider.poll_job("id", {})).error is held.value
    await provider.close()
    found = [problem.message for problem in system_problems(config)]
    assert found == ([f"its package cannot be loaded: {words}"] if is_found_by_check else [])


@pytest.mark.usefixtures("package")
def test_a_package_that_is_loaded_for_long_is_no_silent_file_system(tmp_path, monkeypatch):
    """A library for speech takes many seconds; the check waits for it."""
    monkeypatch.setattr(system_checks, "WAIT_SECONDS", 0.5)
    (tmp_path / "their_provider.py").write_text("import time\ntime.sleep(1)\n" + MODULE)
    config, _ = parse_config(TEXT, folder=Path("/srv"), environ={})
    assert system_problems(config) == ()


@pytest.mark.usefixtures("package")
def test_a_vendor_of_a_package_needs_no_type(tmp_path):
    """Only built-in types have default parameters."""
    (tmp_path / "their_provider.py").write_text(VENDOR)
    config, _ = parse_config(TEXT, folder=Path("/srv"), environ={})
    assert build_provider(config.providers["mine"]).vendor.params({"a": 1}) == {"a": 1}


def test_a_type_that_is_not_installed_is_refused():
    """As any other word."""
    with pytest.raises(ConfigError) as caught:
        parse_config(TEXT, folder=Path("/srv"), environ={})
    assert "is not one of" in caught.value.problems[0].message
