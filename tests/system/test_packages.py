"""What is built of the tree: wheel, source archive, Debian package, container image; and that they work."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support import debian_root
from support.emulator import KEY, Emulator
from support.scene import wav_bytes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UNITS = [str(path.relative_to(ROOT / "systemd")) for path in (ROOT / "systemd").rglob("*") if path.is_file()]
INSTALL_SECONDS = 400

needs_debian = pytest.mark.skipif(bool(debian_root.find_obstacle()), reason=debian_root.find_obstacle())


def needs(tool: str) -> pytest.MarkDecorator:
    """Skips where *tool* is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the source archive."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def deb(tmp_path_factory) -> Path:
    """The Debian package."""
    out = tmp_path_factory.mktemp("deb")
    command = ["sh", str(ROOT / "packaging/build_deb.sh"), str(out)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHON": sys.executable})
    return next(out.glob("*.deb"))


@pytest.fixture(scope="module")
def debian(tmp_path_factory) -> debian_root.DebianRoot:
    """A bare Debian 13 that this module may change."""
    return debian_root.DebianRoot(tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="module")
def installed(debian, deb) -> debian_root.DebianRoot:
    """The same with the Debian package, installed as an admin does it."""
    shutil.copy(deb, debian.path / "root")
    done = debian.run(f"apt-get update -q && apt-get install -q -y --no-install-recommends /root/{deb.name}")
    assert done.returncode == 0, done.stdout
    return debian


def test_the_wheel_has_what_an_installed_dropscribe_needs(built):
    """Units, man pages and completion come with pip install, and every file of the package."""
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    share = {name.partition(".data/data/share/")[2] for name in names}
    assert {f"dropscribe/systemd/{unit}" for unit in UNITS} <= share
    assert {
        "man/man1/dropscribe.1",
        "man/man5/dropscribe.yaml.5",
        "bash-completion/completions/dropscribe",
        "zsh/site-functions/_dropscribe",
    } <= share
    package = ROOT / "daemon/dropscribe"
    caches = {"__pycache__", ".ruff_cache"}
    files = [path for path in package.rglob("*") if path.is_file() and caches.isdisjoint(path.parts)]
    inside = {str(path.relative_to(package)) for path in files}
    assert {"queue/sql/schema.sql", "py.typed", "web/static/style.css"} <= inside
    assert {f"dropscribe/{name}" for name in inside} <= set(names)


def test_nothing_else_is_in_the_wheel(built):
    """No tests, no caches, nothing at the top beside the package and its metadata."""
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert {re.split(r"[-/]", name)[0] for name in names} == {"dropscribe"}
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []


def test_the_source_archive_builds_and_tests_itself(built):
    """Everything that the README's commands and the packages are made of is in it."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {
        "README.md",
        "LICENSE",
        "Containerfile",
        "examples/quickstart.sh",
        "packaging/build_deb.sh",
        "packaging/config_reference.py",
        "packaging/make_docs.py",
        "tests/conftest.py",
        "systemd/dropscribe.service",
    } <= inside


@needs("dpkg-deb")
def test_the_debian_package_puts_things_where_debian_wants_them(deb, tmp_path):
    """Units call /usr/bin; the config is a conffile that others cannot read; no folder is closed."""
    subprocess.run(["dpkg-deb", "-R", deb, tmp_path], check=True)
    unit = (tmp_path / "usr/lib/systemd/system/dropscribe.service").read_text()
    user_unit = (tmp_path / "usr/lib/systemd/user/dropscribe.service").read_text()
    assert "ExecStart=/usr/bin/dropscribe run" in unit
    assert "ExecStart=/usr/bin/dropscribe run" in user_unit
    assert "/opt/" not in unit
    assert (tmp_path / "DEBIAN/conffiles").read_text() == "/etc/dropscribe/config.yaml\n"
    assert stat.S_IMODE((tmp_path / "etc/dropscribe/config.yaml").stat().st_mode) == 0o640
    assert list(tmp_path.rglob(".*")) == []  # the caches of linters
    documents = tmp_path / "usr/share/doc/dropscribe"
    pages = "".join(page.read_text("utf-8") for page in (documents / "docs/recipes").glob("*.md"))
    named = set(re.findall(r"\.\./\.\./(examples/[^)]+)", pages))
    assert named >= {"examples/summarize.py", "examples/old_audio.py"}
    assert [name for name in named if not (documents / name).is_file()] == []
    images = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (documents / "docs/page.md").read_text("utf-8"))
    assert images
    assert [name for name in images if not (documents / "docs" / name).is_file()] == []
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}


@needs("dpkg-deb")
@needs_debian
@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_debian_package_runs_on_debians_own_packages(installed, tmp_path):
    """In a clean root: installed by apt, it makes its user, and takes a file from inbox to done."""
    keys = installed.path / "etc/dropscribe/credentials"
    assert (stat.S_IMODE(keys.stat().st_mode), keys.stat().st_uid) == (0o700, 0)
    assert installed.run("getent passwd dropscribe").returncode == 0
    assert re.fullmatch(r"dropscribe \S+\n", installed.run("dropscribe --version").stdout)
    made = installed.run("dropscribe init /srv/try")
    assert made.returncode == 0, made.stdout
    (installed.path / "srv/try/inbox/call.wav").write_bytes(wav_bytes(1.0))
    with Emulator(key=KEY) as emulator:
        (installed.path / "srv/try/dropscribe.yaml").write_text(
            "state_dir: state\n"
            f"providers: {{main: {{type: openai, url: '{emulator.url}/v1', api_key: '{KEY}'}}}}\n"
            "folders: {calls: {inbox: inbox, provider: main}}\n"
        )
        checked = installed.run("dropscribe check -c /srv/try/dropscribe.yaml")
        assert checked.returncode == 0, checked.stdout
        ran = installed.run("dropscribe run --once -c /srv/try/dropscribe.yaml")
    assert ran.returncode == 0, ran.stdout
    done = installed.path / "srv/try/done"
    assert sorted(path.name for path in done.iterdir()) == ["call.json", "call.txt", "call.wav"]
    assert json.loads((done / "call.json").read_text())["provider"]["type"] == "openai"


@needs("dpkg-deb")
@needs_debian
@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_packages_config_says_what_is_missing(installed):
    """As shipped the config names the one thing to do, and the start is refused with 78."""
    checked = installed.run("dropscribe check")
    assert checked.returncode == 78
    assert "/etc/dropscribe/pulse.key" in checked.stdout
    assert len(re.findall(r"^/etc/dropscribe/config.yaml:\d+:\d+: ", checked.stdout, re.MULTILINE)) == 1


@needs("dpkg-deb")
@needs_debian
@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_debian_package_leaves_and_takes_no_audio_along(deb, tmp_path_factory):
    """A purge removes queue and config, and leaves what an admin put below the state folder."""
    root = debian_root.DebianRoot(tmp_path_factory.mktemp("purged"))
    shutil.copy(deb, root.path / "root")
    assert root.run(f"apt-get update -q && apt-get install -q -y /root/{deb.name}").returncode == 0
    state = root.path / "var/lib/dropscribe"
    (state / "inbox").mkdir(parents=True)
    (state / "inbox/call.wav").write_bytes(b"audio")
    for name in ("queue.db", "running-config.json", "spool/answers/5e4c/1.json"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(b"")
    purged = root.run("apt-get purge -q -y dropscribe")
    assert purged.returncode == 0, purged.stdout
    assert [path.name for path in state.iterdir()] == ["inbox"]
    assert (state / "inbox/call.wav").read_bytes() == b"audio"
    assert not (root.path / "etc/dropscribe").exists()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Builds the image on the bare Debian; gives a function that runs buildah on its store."""
    store = tmp_path_factory.mktemp("store")

    def buildah(*arguments: str) -> str:
        command = ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run"), *arguments]
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    base = buildah("from", "scratch").strip()
    buildah("add", "--quiet", base, str(debian_root.TAR), "/")
    buildah("commit", "--quiet", base, "localhost/base")
    certificates = "/etc/ssl/certs:/etc/ssl/certs:ro"  # this machine's, for its package registry
    arguments = ["--format", "docker", "--build-arg", "BASE=localhost/base", "--volume", certificates]
    buildah("build", *arguments, "--tag", "localhost/dropscribe", str(ROOT))
    return buildah


@needs("buildah")
@needs_debian
@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_image_runs_and_says_how_it_is(image):
    """Built without an engine: the command is there, and entry point, volume and health check are set."""
    container = image("from", "localhost/dropscribe").strip()
    assert image("run", container, "--", "dropscribe", "--version").startswith("dropscribe ")
    inspected = json.loads(image("inspect", "--type", "image", "localhost/dropscribe"))
    config = inspected["Docker"]["config"]
    assert config["Entrypoint"] == ["dropscribe"]
    assert config["Cmd"] == ["run"]
    assert "/data" in config["Volumes"]
    assert "DROPSCRIBE_CONTAINER=1" in config["Env"]
    assert "dropscribe status" in " ".join(config["Healthcheck"]["Test"])


@needs("buildah")
@needs_debian
@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_image_becomes_the_owner_of_the_share(image):
    """With PUID, PGID and UMASK what `init` makes belongs to that user, and group members may write."""
    container = image("from", "localhost/dropscribe").strip()
    image("run", container, "--", "chown", "1026:100", "/data")
    identity = ("--env", "PUID=1026", "--env", "PGID=100", "--env", "UMASK=002")
    image("run", *identity, container, "--", "dropscribe", "init", "/data")
    assert image("run", container, "--", "stat", "-c", "%u:%g %a", "/data/inbox") == "1026:100 775\n"
