"""The lock is whole: what an extra brings is pinned, each file by its hash, alike in every lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
TESTED = {"cluster", "local", "media", "notify", "socks", "test"}
LOCKED = {"base": set(), "test": TESTED, "dev": {*TESTED, "lint"}} | {
    extra: {extra} for extra in EXTRAS if extra not in {"bench", "lint", "test"}
}
PIN = re.compile(
    r"^(\S+)==(\S+)(?: ; [^\\]+)? \\$((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)", re.MULTILINE
)


def pins_of(lock: Path) -> dict[str, set[tuple[str, str]]]:
    """Name → its (version, hashes); several where Pythons differ."""
    pins: dict[str, set[tuple[str, str]]] = {}
    for name, version, hashes in PIN.findall(lock.read_text("utf-8")):
        pins.setdefault(canonicalize_name(name), set()).add((version, hashes.replace(" \\", "")))
    return pins


def requirements_of(extras: set[str]) -> list[Requirement]:
    """What the project asks for with these extras, an extra of its own resolved."""
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["build"]]
    texts += [text for extra in extras for text in EXTRAS[extra]]
    own = [Requirement(text) for text in texts if text.startswith("dropscribe[")]
    rest = [Requirement(text) for text in texts if not text.startswith("dropscribe[")]
    return rest + [found for one in own for found in requirements_of(one.extras)]


def test_every_extra_has_a_lock():
    """Nobody has to install without hashes, whatever he wants besides the daemon."""
    assert {lock.stem for lock in LOCKS} == set(LOCKED)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_what_the_project_asks_for(lock):
    """A changed dependency without `sh packaging/lock.sh` is noticed here."""
    pins = pins_of(lock)
    for wanted in requirements_of(LOCKED[lock.stem]):
        versions = [version for version, _ in pins.get(canonicalize_name(wanted.name), ())]
        assert versions, f"{wanted.name} is not in {lock.name}"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted} in {lock.name}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_of_a_lock_has_its_hashes(lock):
    """pip checks hashes of all or of none."""
    lines = [line for line in lock.read_text("utf-8").splitlines() if re.match(r"\w", line)]

    assert len(lines) == sum(len(versions) for versions in pins_of(lock).values())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_locks_go_together(lock):
    """Two extras are installed by two -r; they must not ask for two releases of one package."""
    everything = pins_of(ROOT / "locks/dev.txt")
    for name, versions in pins_of(lock).items():
        assert versions == everything.get(name, versions), name


def test_the_debian_package_asks_for_every_base_dependency():
    """By Debian's names, with a floor that is not below the project's; httpx stands in for httpx2 there."""
    control = (ROOT / "packaging/debian/control").read_text("utf-8")
    depends = re.search(r"^Depends: (.*)$", control, re.MULTILINE)[1]
    asked = dict(re.findall(r"python3-([\w-]+) \(>= ([\d.]+)\)", depends))
    in_debian = {"httpx2": "httpx", "httpcore2": "httpcore", "pyyaml": "yaml"}
    wanted = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    names = {one.name: in_debian.get(one.name, one.name) for one in wanted if one.name != "truststore"}
    assert set(asked) == set(names.values())
    kept = [one for one in wanted if one.name in names and not one.name.endswith("2")]
    assert [one.name for one in kept if not one.specifier.contains(asked[names[one.name]])] == []
