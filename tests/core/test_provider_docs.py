"""The configs in docs/providers.md and docs/engine.md are accepted as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dropscribe.config.extras import LIBRARIES
from dropscribe.config.load import parse_config
from dropscribe.config.sections.provider_types import PROVIDER_TYPES
from dropscribe.core.errors import ConfigError
from dropscribe.core.requests.speech_hints import SpeechHints, hint_params

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "providers.md").read_text("utf-8")
ENGINE_PAGE = (ROOT / "docs" / "engine.md").read_text("utf-8")
CONFIGS = re.findall(r"```yaml\n(providers:\n.*?)```", PAGE + ENGINE_PAGE, re.DOTALL)
NAMED = re.compile(r"\$\{([A-Z0-9_]+)\}")


@pytest.fixture(autouse=True)
def _with_the_engine(monkeypatch):
    """The extra counts as installed."""
    monkeypatch.setitem(LIBRARIES, "local", ())


def parsed(text: str):
    name = re.search(r"^  ([\w.-]+):", text, re.MULTILINE)[1]
    folders = f"folders: {{calls: {{inbox: /srv/in, provider: {name}}}}}\n"
    environ = dict.fromkeys(NAMED.findall(text), "a-key-of-the-vendor")
    return parse_config(text + folders, folder=Path("/srv"), environ=environ)


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_of_the_page_is_accepted(text):
    """Without a warning."""
    config, warnings = parsed(text)
    assert len(config.providers) == 1
    assert warnings == ()


def test_every_type_is_on_the_page():
    """A type is described by the page's table."""
    assert [kind for kind in PROVIDER_TYPES if f"| `{kind}` |" not in PAGE] == []


@pytest.mark.parametrize("kind", PROVIDER_TYPES)
def test_the_parameters_of_shared_settings_are_on_the_page(kind):
    """A type's row has its names for language, vocabulary and speakers."""
    page = PAGE.partition("## Settings that all share")[2].partition("\n## ")[0]
    row = "".join(re.findall(rf"(?m)^\| `{kind}` \|.*$", page))
    sent = hint_params(kind, "", SpeechHints("en", ("Dropscribe",), speakers=True))
    sent.pop("custom_vocabulary", None)  # a switch beside Gladia's list
    assert [name for name in sent if f"`{name}`" not in row] == []


@pytest.mark.parametrize(("kind", "key"), [("azure", "'region' or 'url'"), ("whisper-asr", "'url'")])
def test_a_provider_without_an_endpoint_is_refused(kind, key):
    """Some types have no endpoint for everybody: one has to be given."""
    with pytest.raises(ConfigError) as caught:
        parsed(f"providers:\n  mine:\n    type: {kind}\n    api_key: x-secret-key\n")
    assert f"a provider of type {kind} needs {key}" in [problem.message for problem in caught.value.problems]
