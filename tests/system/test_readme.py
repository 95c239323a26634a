"""README and documents keep their word: two commands, links that lead somewhere, configs that load."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from dropscribe.config.load import parse_config
from dropscribe.config.sections.provider_types import PROVIDER_TYPES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "SECURITY.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(document: Path, kind: str) -> list[str]:
    """The fenced blocks of one kind, in order."""
    return [text for found, text in FENCE.findall(document.read_text("utf-8")) if found == kind]


def anchors(document: Path) -> set[str]:
    """What a link may name behind "#", as code hosts make it of headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_set_up_is_two_commands():
    """Exactly two sh blocks, each of one command line: the quick start and the tests."""
    commands = blocks(README, "sh")
    assert [len(text.splitlines()) for text in commands] == [1, 1]
    assert commands[0] == "sh examples/quickstart.sh\n"
    assert ".venv/bin/pytest" in commands[1]


def test_the_quick_start_is_there():
    """What the first command runs is part of the clone, and a shell can read it."""
    assert subprocess.run(["sh", "-n", ROOT / "examples/quickstart.sh"], check=False).returncode == 0


def test_the_readme_is_short():
    """Under 200 lines; the config and its effect are on the first screen."""
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) < 200
    assert "before" in "\n".join(lines[:20])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_resolves(document):
    """Files and headings that are linked to exist."""
    broken = []
    for target in LINK.findall(FENCE.sub("", document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


WRITTEN_KEYS = {
    name for page in DOCUMENTS for name in re.findall(r"\$\{(\w+_KEY)\}", page.read_text("utf-8"))
}
VENDORS_KEYS = {facts.key_variable for facts in PROVIDER_TYPES.values() if facts.key_variable}
KEYS = dict.fromkeys(WRITTEN_KEYS | VENDORS_KEYS, "key-for-a-test") | {
    "APPRISE_MAIL": "mailto://user:password@example.com?to=me@example.com",
    "APPRISE_NTFY": "ntfys://topic",
    "GROQ_API_KEY": "key-for-a-test",
    "DEEPGRAM_API_KEY": "key-for-a-test",
    "ELEVENLABS_API_KEY": "key-for-a-test",
    "AZURE_SPEECH_KEY": "key-for-a-test",
    "CLOUDFLARE_API_TOKEN": "key-for-a-test",
    "WEBHOOK_SECRET": "secret-for-a-test",
    "PAGE_TOKEN": "a-token-for-a-test",
    "DROPSCRIBE_DSN": "postgresql://user:password@db/queue?sslmode=verify-full",
}
LOOPBACK = {"type": "openai", "url": "http://127.0.0.1:9/v1"}


def completed(text: str) -> str:
    """A block's config made whole: the providers that its rules name, none of them the embedded engine."""
    config = yaml.safe_load(text)
    rules = config.setdefault("folders", {"any": {"inbox": "inbox", "provider": "here"}})
    lists = [rule["provider"] for rule in rules.values()]
    named = {name for names in lists for name in ([names] if isinstance(names, str) else names)}
    providers = {**dict.fromkeys(sorted(named), LOOPBACK), **config.get("providers", {})}
    config["providers"] = {n: LOOPBACK if p["type"] == "local" else p for n, p in providers.items()}
    return yaml.safe_dump(config)


@pytest.mark.parametrize(
    ("document", "text"),
    [(document, text) for document in DOCUMENTS for text in blocks(document, "yaml")],
    ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else "",
)
def test_every_config_loads(tmp_path, document, text):
    """Each yaml block, with the providers it leaves out, is a config that the daemon takes."""
    config, _ = parse_config(completed(text), folder=tmp_path, environ=KEYS)
    assert config.folders


def test_the_page_names_all_extras():
    """Those that an installation can have, each with its lock; none that is gone."""
    page = (ROOT / "docs/installation.md").read_text("utf-8")
    named = re.findall(r"`([\w-]+)`", page.partition("Optional parts are extras:")[2].partition(". ")[0])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert sorted(named) == sorted(extras.keys() - {"test", "bench", "lint"})
    assert all((ROOT / "locks" / f"{name}.txt").exists() for name in named)


@pytest.mark.parametrize("index", [ROOT / "docs/README.md", ROOT / "docs/design/README.md"])
def test_every_document_is_in_an_index(index):
    """docs/README.md leads to every page; the design notes have an index of their own."""
    pages = {page.relative_to(index.parent) for page in index.parent.rglob("*.md") if page != index}
    here = {page for page in pages if page.parts[0] != "design" or page.name == "README.md"}
    text = index.read_text("utf-8")
    assert [str(page) for page in sorted(here) if f"({page})" not in text] == []


def test_the_steps_to_uninstall_remove_what_the_steps_to_install_make():
    """Each file and folder of the program, as README and installation.md put it there, is removed again."""
    page = (ROOT / "docs/installation.md").read_text("utf-8")
    uninstall = page.partition("## Uninstall")[2]
    made = []
    for line in [*blocks(README, "console"), *blocks(ROOT / "docs/installation.md", "console")]:
        made += re.findall(r"(?:-m venv|cp \S+|ln -s \S+) (/\S+|~\S+)", line)
    removed = re.findall(r"[/~][\w./~-]+", uninstall)
    kept = [
        path
        for path in made
        if not any(path.rstrip("/") == gone or path.startswith(f"{gone}/") for gone in removed)
        and not any(gone.startswith(path) and path.endswith("/") for gone in removed)
    ]
    assert kept == []
    assert len(made) >= 8
