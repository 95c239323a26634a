"""The house's directions: no arrow runs back (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "daemon" / "dropscribe"

FLOORS = {
    "core": 0,
    "files": 1,
    "config": 2,
    "transcripts": 2,
    "native": 3,
    "providers": 4,
    "publish": 4,
    "queue": 4,
    "media": 5,
    "intake": 5,
    "service": 5,
    "pipeline": 6,
    "reports": 6,
    "search": 7,
    "web": 8,
    "app": 9,
    "cli": 10,
}
"""A room imports from itself and from floors below. transcripts and config are below providers, which
are built from a config and hand over transcripts."""

PURE = (
    "os",
    "asyncio",
    "time",
    "logging",
    "structlog",
    "socket",
    "sqlite3",
    "pathlib",
    "threading",
    "random",
)


def modules():
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def imports_of(path: Path) -> set[str]:
    """Absolute modules that *path* imports, those for type checkers alone included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_below(path):
    """Imports lead from a floor to itself's room or to a lower floor."""
    room = room_of(path)
    for name in imports_of(path):
        if not name.startswith("dropscribe."):
            continue
        other = name.split(".")[1]
        if other in FLOORS and other != room:
            assert FLOORS[other] < FLOORS[room], f"{path.name} in {room} imports {name}"


@pytest.mark.parametrize("path", sorted((SOURCE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_core_is_pure(path):
    """core touches no file, clock, loop or log: what it needs comes in as arguments."""
    roots = {name.split(".")[0] for name in imports_of(path)}

    assert roots.isdisjoint(PURE)


def test_no_source_root_package():
    """daemon/ is a source root like src/: the name belongs to python-daemon."""
    assert not (SOURCE.parent / "__init__.py").exists()


def test_httpx_stays_at_the_edge():
    """Only the providers' transport knows httpx; the heartbeat and the webhook use it."""
    users = {
        str(path.relative_to(SOURCE))
        for path in modules()
        if any(
            name.split(".")[0] in {"httpx", "httpx2"} or name.endswith("http_library")
            for name in imports_of(path)
        )
    }

    assert all(user.startswith("providers/") for user in users)


NATIVE_LIBRARIES = {"av", "numpy", "ctranslate2", "onnxruntime", "faster_whisper"}


def test_native_libraries_stay_in_worker_processes():
    """Libraries that a file could crash are imported in native/worker/ alone, and that by no other folder."""
    native = SOURCE / "native"
    for path in modules():
        is_workers = path.parent == native / "worker"
        imported = {
            name
            for name in imports_of(path)
            if name.split(".")[0] in NATIVE_LIBRARIES or name.startswith("dropscribe.native.worker")
        }
        assert is_workers or not imported, f"{path} imports {imported}"


def test_the_daemon_loads_no_native_library():
    """Neither the daemon nor the embedded engine's provider has them in its process."""
    loaded = loaded_by("import dropscribe.app.daemon, dropscribe.providers.local, dropscribe.media.fitted")

    assert loaded.isdisjoint(NATIVE_LIBRARIES)


def test_files_stay_readable():
    """No source file is longer than 400 lines."""
    long = {path.name: n for path in modules() if (n := len(path.read_text("utf-8").splitlines())) > 400}

    assert long == {}


def test_folders_stay_small():
    """No folder holds more than fifteen modules: a reader finds each thing where he looks."""
    folders = Counter(path.parent for path in modules() if path.name != "__init__.py")

    assert [folder for folder, count in folders.items() if count > 15] == []


def loaded_by(program: str, *arguments: str) -> set[str]:
    """Packages that a process has imported by the end of *program*; our own by room: "dropscribe.cli"."""
    show = "; import sys; sys.stderr.write(' '.join(sys.modules))"
    command = [sys.executable, "-c", program + show, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCE.parent)
    names = [name.split(".") for name in done.stderr.split()]
    return {".".join(parts[:2] if parts[0] == "dropscribe" else parts[:1]) for parts in names}


def test_status_loads_what_a_look_needs(tmp_path):
    """status is Python's start and its imports: no log, no loop, no HTTP, nothing of what runs the daemon."""
    config = tmp_path / "dropscribe.yaml"
    config.write_text(
        "state_dir: state\n"
        "providers: {p: {type: pulse, api_key: sk_test}}\n"
        "folders: {calls: {inbox: inbox, provider: p}}\n"
    )
    (tmp_path / "inbox").mkdir()
    program = "import sys; from dropscribe.cli.main import main; assert main(sys.argv[1:]) == 0"

    loaded = loaded_by(program, "status", "-c", str(config))

    assert "dropscribe.cli" in loaded
    unneeded = {"structlog", "asyncio", "httpx", "httpx2", "dropscribe.providers", "dropscribe.app"}
    assert loaded.isdisjoint(unneeded)


def test_reading_a_config_loads_nothing_of_the_daemon():
    """Only the rooms below it: what it loads is paid for at each start of a command."""
    loaded = loaded_by("import dropscribe.config.load")

    assert {name for name in loaded if name.startswith("dropscribe.")} <= {
        "dropscribe.config",
        "dropscribe.core",
        "dropscribe.files",
    }
    assert loaded.isdisjoint({"structlog", "asyncio", "sqlite3"})
