"""The recipes of docs/providers.md for `type: http`, as configs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dropscribe.config.load import parse_config
from support.vendors import KEY

if TYPE_CHECKING:
    from dropscribe.config.model import ProviderConfig

_PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
RECIPES = {
    name: text
    for text, name in re.findall(
        r"```yaml\n(providers:\n  ([\w.-]+):\n    type: http\n.*?)```", _PAGE, re.DOTALL
    )
}
"""By the name of the provider in it."""


def recipe_config(name: str, host: str) -> ProviderConfig:
    """The provider of a recipe, but for its *host* ("http://127.0.0.1:80") and the pace of its polls."""
    text = RECIPES[name].replace("every: 3s", "every: 10ms")
    folders = f"folders: {{calls: {{inbox: /srv/in, provider: {name}}}}}\n"
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), KEY)
    config, warnings = parse_config(text + folders, folder=Path("/srv"), environ=environ)
    assert warnings == ()
    written = config.providers[name]
    return dataclasses.replace(written, url=host + urlsplit(written.url or "").path, timeout_seconds=5.0)
