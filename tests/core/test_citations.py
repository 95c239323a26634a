"""The repository explains itself: a citation or link leads to a file that a reader has."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
IN_CAPITALS = re.compile(r"(?<![A-Za-z0-9_])[A-Z][A-Z0-9]+\.md\b")
"""The name of a page that documents a project as a whole, such as the one on its architecture."""

READ_ELSEWHERE = {"MANIFEST.md"}
"""Lists recordings in a folder that a bench is given: a name that the code opens, not a page."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def test_cited_pages_are_in_the_repository():
    """No file cites a page, by its name in capitals, that the repository does not contain."""
    names = {path.name for path in tracked()}

    cited = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in tracked()
        for name in IN_CAPITALS.findall(path.read_text("utf-8", "ignore"))
        if name not in names | READ_ELSEWHERE
    }

    assert cited == set()


def test_relative_links_lead_to_files():
    """Each relative link on a page leads to a file or folder of the repository."""
    dead = set()
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in LINK.findall(CODE_BLOCK.sub("", page.read_text("utf-8"))):
            place = page.parent / target.partition("#")[0]
            if not re.match(r"[a-z]+:", target) and not place.exists():
                dead.add(f"{page.relative_to(ROOT)}: {target}")

    assert dead == set()


def test_named_tests_exist():
    """Each test that the table of guards names, by its beginning at least, exists."""
    page = (ROOT / "tests" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\|[^|]+\| (test_\w+): ([^|]+)\|$", page, re.MULTILINE)
    tests = "\n".join(path.read_text("utf-8") for path in tracked() if path.name.startswith("test_"))
    named = {name for _, cell in rows for name in re.findall(r"`(\w+)`", cell)}

    assert len(named) > 20
    assert {name for name in named if f"def test_{name}" not in tests} == set()
