"""A package of somebody else adds a type of provider by an entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError
from dropscribe.providers.build import build_provider

TEXT = (
    "providers: {mine: {type: theirs, url: 'http://127.0.0.1:1/', params: {a: 1}}}\n"
    "folders: {f: {inbox: /srv/in, provider: mine}}\n"
)
MODULE = "def build(config):\n    return ('built', config.url, config.params)\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with the type `theirs`."""
    (tmp_path / "their_provider.py").write_text(MODULE)
    facts = tmp_path / "their_provider-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-provider\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[dropscribe.providers]\ntheirs = their_provider:build\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_an_installed_type_is_accepted_and_built():
    """With the keys that all providers have, a url and a key."""
    config, _ = parse_config(TEXT, folder=Path("/srv"), environ={})
    assert build_provider(config.providers["mine"]) == ("built", "http://127.0.0.1:1/", {"a": 1})


def test_a_type_that_is_not_installed_is_refused():
    """As any other word."""
    with pytest.raises(ConfigError) as caught:
        parse_config(TEXT, folder=Path("/srv"), environ={})
    assert "is not one of" in caught.value.problems[0].message
