"""Every mistake of the first hour: each message names the remedy, and none is a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from dropscribe.cli.main import main
from dropscribe.config.extras import LIBRARIES, install_hint
from support.faults import mounted, with_attribute
from support.scene import CONFIG

COMMANDS = ("check", "plan", "status", "why", "retry", "transcribe")


def run_broken(scene, capsys, text: str) -> str:
    """What `check` says to a config of *text*, which it refuses."""
    scene.config.write_text(text)
    assert scene.run("check") == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_config(tmp_path, monkeypatch, capsys, command):
    """Every command says where it looked and how to get one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DROPSCRIBE_CONFIG", str(tmp_path / "none.yaml"))
    arguments = {"why": ["x.wav"], "retry": ["--all"], "transcribe": ["x.wav"]}.get(command, [])
    assert main([command, *arguments]) == 78
    said = capsys.readouterr().err
    assert "none.yaml" in said
    assert "dropscribe init" in said


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        (CONFIG.replace("    provider: main", "\tprovider: main"), ":10:", "tab"),
        (CONFIG.replace("provider: main", "provider: mian"), ":10:", "did you mean 'main'?"),
        (CONFIG.replace("inbox: inbox", "inobx: inbox"), ":9:", "did you mean 'inbox'?"),
        (CONFIG + "  more:\n    inbox: inbox\n    provider: main\n", ":12:", "one rule, one inbox"),
        (CONFIG.replace("openai", "pulse"), ":3:", "SMALLEST_API_KEY"),
        (CONFIG.replace("provider: main", "provider: main\n    done: inbox/done"), ":11:", "put it beside"),
    ],
    ids=["tab", "provider", "key", "two rules one inbox", "no api key", "done inside"],
)
def test_a_config_that_cannot_be_used(scene, capsys, text, place, remedy):
    """The place, and what would be right."""
    said = run_broken(scene, capsys, text)
    assert place in said
    assert remedy in said


def test_a_broken_config_as_json(scene, capsys):
    """A script gets one object with the same problems."""
    scene.config.write_text(CONFIG.replace("provider: main", "provider: mian"))
    assert scene.run("check", "--json") == 78
    assert "\"did you mean 'main'?\"" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "pages, metrics, health and status"),
        (", uploads: true", "pages, uploads, metrics, health and status"),
        (", pages: false", "metrics, health and status"),
    ],
)
def test_the_listener_is_named_with_its_parts(scene, capsys, more, words):
    """Pages and uploads are shown only where they are on."""
    scene.config.write_text(f"{CONFIG}http: {{listen: 'unix:page.sock'{more}}}\n")
    assert scene.run("check") == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("http ")]
    assert row.endswith(f"  {words}")


def test_the_query_of_a_url_is_not_shown(scene, capsys):
    """It may hold a key, and a check is sent with a report of a bug."""
    scene.config.write_text(CONFIG.replace("/v1", "/v1?extra=CANARY"))
    for arguments in ([], ["--json"]):
        assert scene.run("check", *arguments) == 0
        shown = "".join(capsys.readouterr())
        assert "http://127.0.0.1:9/v1?" in shown
        assert "CANARY" not in shown


def test_a_damaged_queue_is_told_before_the_start(scene, capsys):
    """As `run` and `status` say it."""
    (scene.root / "state").mkdir(exist_ok=True)
    (scene.root / "state" / "queue.db").write_bytes(b"no database" * 1000)
    assert scene.run("check", "--quiet") == 74
    said = capsys.readouterr().err
    assert "queue.db: is damaged" in said
    assert "move it away" in said


@pytest.mark.parametrize("is_full", [False, True], ids=["listens", "accepts nothing"])
def test_the_socket_of_another_program_is_told_before_the_start(scene, capsys, is_full):
    """As a port that another program has; a dead socket is replaced by the start."""
    path = scene.root / "page.sock"
    scene.config.write_text(CONFIG + f"http: {{listen: 'unix:{path}'}}\n")
    with contextlib.ExitStack() as sockets:
        other = sockets.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(path))
        other.listen(0)
        while is_full:
            client = sockets.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            is_full = client.connect_ex(str(path)) == 0
        assert scene.run("check", "--quiet") == 74
        assert f"http.listen unix:{path}: Address already in use" in capsys.readouterr().err
    assert scene.run("check", "--quiet") == 0


def test_a_metrics_file_that_cannot_be_replaced_is_a_warning(scene, capsys):
    """The daemon would say so in its log, and go on."""
    folder = scene.root / "metrics"
    scene.config.write_text(CONFIG + f"metrics: {{file: '{folder}/dropscribe.prom'}}\n")
    with mounted(folder, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        assert scene.run("check", "--quiet") == 0
    assert f"metrics.file: {folder} may not be written by " in capsys.readouterr().err


def test_a_missing_inbox_is_a_warning(scene, capsys):
    """Exit 0: a share may come later; the remedy is said."""
    (scene.root / "inbox").rmdir()
    assert scene.run("check", "--quiet") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"mkdir -p {scene.root}/inbox" in said.err


def test_a_remedy_with_a_path_can_be_pasted(scene, capsys):
    """A path with a space is one word of the shell, and nothing in it is a command."""
    scene.config.write_text(CONFIG.replace("inbox: inbox", "inbox: my calls; rm -r x/inbox"))
    assert scene.run("check", "--quiet") == 0
    assert f"(mkdir -p '{scene.root}/my calls; rm -r x/inbox')" in capsys.readouterr().err


def test_a_missing_parent_of_the_inbox(scene, capsys):
    """A path that was mistyped near its beginning reads the same."""
    scene.config.write_text(CONFIG.replace("inbox: inbox", "inbox: /srv/no/such/place/inbox"))
    assert scene.run("check", "--quiet") == 0
    assert "/srv/no/such/place/inbox is not there" in capsys.readouterr().err


def test_an_inbox_that_is_a_file(scene, capsys):
    """Said as it is."""
    (scene.root / "inbox").rmdir()
    (scene.root / "inbox").write_text("")
    assert scene.run("check", "--quiet") == 0
    assert "is not a folder" in capsys.readouterr().err


def test_a_state_directory_that_is_a_file(scene, capsys):
    """Another user would not help."""
    (scene.root / "state").write_text("")
    assert scene.run("check", "--quiet") == 74
    said = capsys.readouterr().err
    assert f"state_dir {scene.root}/state cannot be made: {scene.root}/state is not a folder" in said


def test_a_state_directory_whose_disk_is_away(scene, capsys):
    """A link to a folder that is not there: ``check`` ended without a report."""
    (scene.root / "state").symlink_to(scene.root / "disk/state")
    assert scene.run("check", "--json") == 74
    told = json.loads(capsys.readouterr().out)
    link = f"{scene.root}/state"
    assert told["errors"] == [
        f"state_dir {link} cannot be made: {link} is a link to a folder that is not there"
    ]
    assert not told["state_dir"]["exists"]


@pytest.mark.parametrize("command", ["status", "list", "check"])
def test_a_pipe_in_the_place_of_the_queue_is_not_waited_for(scene, capsys, command):
    """It is named."""
    (scene.root / "state").mkdir()
    os.mkfifo(scene.root / "state/queue.db")
    assert scene.run(command) == 74
    assert "queue.db: is not a file" in capsys.readouterr().err


def test_what_is_missing_on_this_system_has_its_place_too(scene, capsys):
    """A hook and a folder that are not there: file, line and column, as any mistake has them."""
    text = CONFIG + "hooks: {on_done: [/no/such/hook]}\nmetrics:\n  file: nowhere/x.prom\n"
    line = CONFIG.count("\n") + 1
    scene.config.write_text(text)
    assert scene.run("check") == 78
    table, said = capsys.readouterr()
    assert f"{scene.config}  NOT valid\n" in table
    assert f"{scene.config}:{line}:9: hooks.on_done: '/no/such/hook' cannot be run" in said
    assert f"{scene.config}:{line + 2}:9: metrics.file: " in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("mode", [0o733, 0o700])
def test_an_inbox_that_may_not_be_listed(scene, capsys, mode):
    """A folder into which others may only drop files: check names it as one that cannot be read."""
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    scene.run("check", "--quiet")
    capsys.readouterr()
    inbox = scene.root / "inbox"
    inbox.chmod(mode)
    os.seteuid(65534)
    try:
        scene.run("check", "--quiet")
    finally:
        os.seteuid(0)
    assert f"{inbox} may not be listed by uid 65534" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_wrong_owner(scene, capsys):
    """Folders of root's, asked by another user: what may not be done, and the command that mends it."""
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    scene.config.chmod(0o644)
    scene.run("check", "--quiet")
    capsys.readouterr()
    os.seteuid(65534)
    try:
        code = scene.run("check", "--quiet")
    finally:
        os.seteuid(0)
    said = capsys.readouterr().err
    assert code == 74
    assert "state_dir" in said
    assert "inbox may not be written by nobody (uid 65534)" in said
    assert "setfacl -m u:65534:rwx" in said


@pytest.mark.parametrize(("letter", "place"), [("i", "inbox"), ("a", "inbox"), ("a", "done")])
def test_a_folder_with_an_attribute_that_lets_no_file_go(scene, capsys, letter, place):
    """Its mode says nothing of it, and no access helps."""
    (scene.root / "done").mkdir(exist_ok=True)
    with with_attribute(letter, scene.root / place):
        scene.run("check", "--quiet")
    assert f"it is immutable or append-only: chattr -i -a {scene.root / place}" in capsys.readouterr().err


def test_one_inbox_by_two_paths(scene, capsys):
    """A bind mount, which no path shows: with it the daemon does not start."""
    with mounted(scene.root / "memos", "--bind", scene.root / "inbox"):
        with scene.config.open("a") as config:
            config.write("  memos: {inbox: memos, provider: main, done: d, failed: f}\n")
        assert scene.run("check", "--quiet") == 74
    assert "another rule's inbox is the same folder" in capsys.readouterr().err


def test_a_port_in_use(scene, capsys):
    """The address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        scene.config.write_text(CONFIG + f"http: {{listen: 127.0.0.1:{port}}}\n")
        assert scene.run("check", "--quiet") == 74
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "choose another" in said


def test_init_makes_a_folder_that_works_at_once(tmp_path, monkeypatch, capsys):
    """A config that only its owner reads, its folders, and the two commands to type."""
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    said = capsys.readouterr().out
    assert stat.S_IMODE((tmp_path / "dropscribe.yaml").stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"dropscribe.yaml", "inbox", "done", "failed"}
    assert "\n  dropscribe check\n  dropscribe run\n" in said
    assert main(["status"]) == 0


def test_init_elsewhere_names_the_config_in_what_to_type(tmp_path, capsys):
    """The commands work when they are pasted."""
    assert main(["init", str(tmp_path / "a b")]) == 0
    assert f"dropscribe run -c '{tmp_path}/a b/dropscribe.yaml'" in capsys.readouterr().out


@pytest.mark.parametrize("hidden_by", ["mode", "variable"])
def test_init_names_the_config_that_a_command_would_not_find(tmp_path, monkeypatch, capsys, hidden_by):
    """In a folder that others may write to, or where the environment names another config."""
    monkeypatch.chdir(tmp_path)
    if hidden_by == "mode":
        tmp_path.chmod(0o777)
    else:
        monkeypatch.setenv("DROPSCRIBE_CONFIG", "/etc/hosts")
    assert main(["init"]) == 0
    assert "\n  dropscribe check -c dropscribe.yaml\n" in capsys.readouterr().out
    assert main(["check", "-c", "dropscribe.yaml"]) == 0


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"-q"])
def test_a_folder_with_an_odd_name_can_be_pasted(tmp_path, monkeypatch, capsys, name):
    """As bash writes it: nothing printable names the folder, or its name looks like an option."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--", os.fsdecode(name)]) == 0
    said = capsys.readouterr().out
    assert [line.partition(" ")[0] for line in said.split("\n") if "inbox" in line] == ["made"]
    arguments = said.rpartition("dropscribe run ")[2].strip()
    found = subprocess.run(["bash", "-c", f"printf '%s\\0' {arguments}"], check=True, capture_output=True)
    assert main(["check", "-q", *map(os.fsdecode, found.stdout.split(b"\0")[:-1])]) == 0


def test_init_changes_nothing_that_is_there(scene, capsys):
    """A second init keeps the config and makes the folders that are missing."""
    (scene.root / "inbox").rmdir()
    assert main(["init", str(scene.root)]) == 0
    assert scene.config.read_text() == CONFIG
    assert (scene.root / "inbox").is_dir()
    assert "is there already" in capsys.readouterr().out


def test_init_needs_no_key(scene):
    """Of a config that it wrote before; it only makes folders."""
    text = scene.config.read_text()
    scene.config.write_text(text.replace("    url:", "    api_key: ${NOT_SET_HERE}\n    url:"))
    (scene.root / "inbox").rmdir()
    assert main(["init", str(scene.root)]) == 0
    assert (scene.root / "inbox").is_dir()


def test_init_without_the_engine_names_the_command(tmp_path, monkeypatch, capsys):
    """The one thing that is missing is named."""
    monkeypatch.setitem(LIBRARIES, "local", ("no_such_library",))
    assert main(["init", str(tmp_path)]) == 0
    assert install_hint("local") in capsys.readouterr().out


def test_init_in_an_image_without_the_engine_names_an_online_provider(tmp_path, monkeypatch, capsys):
    """Nothing can be installed into an image: the new config needs a key, and no engine."""
    monkeypatch.setenv("DROPSCRIBE_CONTAINER", "1")
    monkeypatch.setitem(LIBRARIES, "local", ("no_such_library",))
    assert main(["init", str(tmp_path)]) == 0
    assert "SMALLEST_API_KEY" in capsys.readouterr().out
    monkeypatch.setenv("SMALLEST_API_KEY", "key-for-a-test")
    assert main(["check", "-c", str(tmp_path / "dropscribe.yaml")]) == 0


def test_init_where_nothing_may_be_written(tmp_path, capsys):
    """A file in the place of the folder: said, 74."""
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 74
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("with_config", [False, True])
def test_init_leaves_nothing_half_where_a_file_has_the_place_of_a_folder(scene, capsys, with_config):
    """The file is named before anything is written."""
    (scene.root / "inbox").rmdir()
    (scene.root / "done").rmdir()
    (scene.root / "inbox").write_text("a file")
    if not with_config:
        scene.config.unlink()
    before = sorted(scene.root.iterdir())
    assert main(["init", str(scene.root)]) == 74
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"dropscribe: {scene.root}/inbox: is not a folder; move it away\n"
    assert sorted(scene.root.iterdir()) == before


def test_init_on_a_full_disk_names_the_config(tmp_path):
    """Nothing of it is left."""
    command = 'ulimit -f 0; exec "$0" -m dropscribe init "$1"'
    call = ["sh", "-c", command, sys.executable, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 74
    assert done.stderr == f"dropscribe: {tmp_path}/dropscribe.yaml: File too large\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["init"], ["transcribe", "a.wav"]])
def test_a_current_folder_that_has_been_removed(tmp_path, monkeypatch, capsys, arguments):
    """It is named, with the remedy."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(LIBRARIES, "local", ())
    folder.rmdir()
    assert main(arguments) == 74
    said = capsys.readouterr().err
    assert said == "dropscribe: the current folder has been removed: change to another one\n"


def test_a_damaged_queue_says_what_to_do(scene, capsys):
    """Nothing is deleted by itself; the remedy is in the message."""
    (scene.root / "state").mkdir()
    (scene.root / "state/queue.db").write_bytes(b"not a database" * 1000)
    assert scene.run("status") == 74
    assert "move it away" in capsys.readouterr().err
