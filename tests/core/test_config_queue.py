"""The section ``queue``: what it becomes, how mistakes in it are told, and that its dsn is never shown."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path, PurePath

import pytest

from dropscribe.cli.main import main
from dropscribe.config.extras import LIBRARIES, install_hint
from dropscribe.config.load import load_config, parse_config
from dropscribe.config.model import diff_configs
from dropscribe.core.errors import ConfigError

pytest.importorskip("psycopg", reason="psycopg is not installed (extra `cluster`)")

SRV = Path("/srv")
PROVIDERS = "providers: {p: {type: openai, url: 'http://127.0.0.1/v1'}}\n"
FOLDERS = "folders: {f: {inbox: in, provider: p}}\n"
CANARY = "canary_7f3a9"
DSN = f"postgresql://user:{CANARY}@127.0.0.1:5433/jobs"
WHOLE = "type: postgres, dsn: dbname=x, roots: {share: /srv}"


def parsed(queue, folders=FOLDERS, environ=None):
    """The config with this section, and its warnings."""
    text = f"{PROVIDERS}{folders}queue: {{{queue}}}\n"
    return parse_config(text, folder=SRV, environ=environ or {})


def queue_of(queue, **surroundings):
    return parsed(queue, **surroundings)[0].queue


def warned_of(queue, **surroundings):
    """(path, message) of the warnings."""
    return [(problem.path, problem.message) for problem in parsed(queue, **surroundings)[1]]


def said_of(queue, **surroundings):
    """(path, message) of the errors."""
    with pytest.raises(ConfigError) as caught:
        parsed(queue, **surroundings)
    return [(problem.path, problem.message) for problem in caught.value.problems if not problem.warning]


def test_without_it_and_when_it_says_so_the_queue_is_embedded():
    """No section, an empty one, and type: embedded are the same."""
    assert parse_config(PROVIDERS, folder=SRV, environ={})[0].queue is None
    assert parse_config(f"{PROVIDERS}queue:\n", folder=SRV, environ={})[0].queue is None
    assert parsed("type: embedded")[0].queue is None
    assert warned_of("type: embedded, dsn: x, role: all") == [
        ("queue.dsn", "has no effect with type: embedded"),
        ("queue.role", "has no effect with type: embedded"),
    ]


def test_a_queue_in_postgres_has_its_defaults():
    """All roles, and the host's name."""
    queue = queue_of(f"type: postgres, dsn: '{DSN}', roots: {{share: /srv}}")
    assert (queue.type, queue.role, queue.node) == ("postgres", "all", socket.gethostname())
    assert queue.roots == {"share": SRV}
    assert queue.dsn.reveal() == DSN


def test_everything_may_be_said():
    """Roots are relative to the config as other paths are, and plain."""
    queue = queue_of(
        "type: postgres, dsn: dbname=x, role: work, node: gpu-1, roots: {a: ., b_2: /x/../mnt/b/}"
    )
    assert (queue.role, queue.node) == ("work", "gpu-1")
    assert queue.roots == {"a": SRV, "b_2": Path("/mnt/b")}


def test_where_the_dsn_comes_from(tmp_path):
    """Config, environment, file, credential: as a key does."""
    (tmp_path / "dsn").write_text(f"{DSN}\n")
    (tmp_path / "dsn").chmod(0o600)

    def origin(given, environ=None):
        queue = queue_of(f"type: postgres, {given}, roots: {{share: /srv}}", environ=environ)
        assert queue.dsn.reveal() == DSN
        return queue.dsn.origin

    assert origin(f"dsn: '{DSN}'") == "config"
    assert origin("dsn: '${D}'", {"D": DSN}) == "environment D"
    assert origin(f"dsn_file: {tmp_path}/dsn") == f"file {tmp_path}/dsn"
    assert origin("dsn_credential: dsn", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "credential dsn"


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        ("type: postgres, roots: {share: /srv}", [("queue", "there is no dsn")]),
        ("type: postgres, dsn: dbname=x", [("queue.roots", "there is no root")]),
        ("type: postgres", [("queue", "there is no dsn"), ("queue.roots", "there is no root")]),
        (f"{WHOLE}, rol: all", [("queue.rol", "unknown key 'rol'")]),
        (f"{WHOLE}, role: boss", [("queue.role", "'boss' is not one of all, watch, work")]),
        (f"{WHOLE}, node: 'a b'", [("queue.node", "'a b' is not a name")]),
        (f"{WHOLE}, dsn_file: x", [("queue.dsn_file", "dsn is given too")]),
        (
            "type: postgres, dsn_file: nope, roots: {share: /srv}",
            [("queue.dsn_file", "/srv/nope cannot be read: No such file or directory")],
        ),
        (
            "type: postgres, dsn_credential: x, roots: {share: /srv}",
            [("queue.dsn_credential", "$CREDENTIALS_DIRECTORY is not set")],
        ),
        (
            "type: postgres, dsn: 'postgresql://h/x?colour=red', roots: {share: /srv}",
            [("queue.dsn", "libpq cannot read this dsn")],
        ),
        ("type: postgres, dsn: words, roots: {share: /srv}", [("queue.dsn", "libpq cannot read this dsn")]),
        ("dsn: dbname=x", [("queue", "the key 'type' is missing")]),
        ("type: redis", [("queue.type", "'redis' is not one of embedded, postgres")]),
        (
            "type: postgres, dsn: dbname=x, roots: {Share: /srv}",
            [("queue.roots.Share", "'Share' is not a name of a root")],
        ),
        (
            "type: postgres, dsn: dbname=x, roots: {a: /srv, b: /srv/b}",
            [("queue.roots.b", "the roots 'a' and 'b' are one, or one lies inside the other")],
        ),
        (
            "type: postgres, dsn: dbname=x, roots: {a: /srv/x, b: /srv/y/../x}",
            [
                ("queue.roots.b", "the roots 'a' and 'b' are one, or one lies inside the other"),
            ],
        ),
        (
            "type: postgres, dsn: dbname=x, roots: {a: /mnt}",
            [("queue.roots", "no folder lies beneath a root")],
        ),
    ],
)
def test_a_mistake_is_told_once_at_its_place(queue, said):
    """Each mistake is one problem."""
    assert said_of(queue) == said


def test_roots_are_compared_where_they_lead(tmp_path):
    """A link to a root is that root."""
    (tmp_path / "link").symlink_to(tmp_path)
    said = said_of(f"type: postgres, dsn: dbname=x, roots: {{a: {tmp_path}, b: {tmp_path}/link}}")
    assert [path for path, _ in said] == ["queue.roots.b"]


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    """What to install is the hint; only where PostgreSQL is asked for."""
    monkeypatch.setitem(LIBRARIES, "cluster", ("json", "no_such_package_of_ours"))
    assert said_of(WHOLE) == [("queue.type", "PostgreSQL needs procrastinate and psycopg")]
    with pytest.raises(ConfigError) as caught:
        parsed(WHOLE)
    assert caught.value.problems[0].hint == install_hint("cluster")
    assert parsed("type: embedded")[0].queue is None


MIXED = """folders:
  f: {inbox: in, provider: p}
  elsewhere: {inbox: /mnt/b/in, provider: p}
  half: {inbox: half/in, done: /mnt/b/done, provider: p}
  sneaky: {inbox: ../mnt/b/in2, provider: p}
"""


def test_a_folder_that_is_not_wholly_beneath_roots_is_left_to_others():
    """It stays in the config, with a warning; served is what has all of its folders beneath roots."""
    config, _ = parsed(WHOLE, folders=MIXED)
    assert list(config.folders) == ["f", "elsewhere", "half", "sneaky"]
    assert [name for name, rule in config.folders.items() if config.queue.serves(rule)] == ["f"]
    message = "left to other nodes: its {} lies beneath no root of the queue"
    assert warned_of(WHOLE, folders=MIXED) == [
        ("folders.elsewhere.inbox", message.format("inbox /mnt/b/in")),
        ("folders.half.done", message.format("done /mnt/b/done")),
        ("folders.sneaky.inbox", message.format("inbox /srv/../mnt/b/in2")),
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/calls/in/a.wav", ("a", PurePath("calls/in/a.wav"))),
        ("/srv", ("a", PurePath())),
        ("/srv2/a.wav", None),
        ("/srv/../etc/passwd", None),
        ("/mnt/b/./x//y", ("b", PurePath("x/y"))),
        (os.fsdecode(b"/srv/\xff.wav"), ("a", PurePath(os.fsdecode(b"\xff.wav")))),
    ],
)
def test_a_path_is_known_by_its_root(path, found):
    """The root's name, and the path beneath it."""
    queue = queue_of("type: postgres, dsn: dbname=x, roots: {a: /srv, b: /mnt/b}")
    assert queue.root_of(Path(path)) == found


ELSEWHERE = "host=db.example password=x"


@pytest.mark.parametrize(
    ("dsn", "environ", "is_warned"),
    [
        ("postgresql://u@db.example/x", {}, True),
        ("postgresql://u@127.0.0.1,db.example/x", {}, True),
        ("postgresql://u@db.example/x?sslmode=prefer", {}, True),
        ("postgresql://u@db.example/x?sslmode=require", {}, False),
        ("postgresql://u@db.example/x?sslmode=verify-full&sslrootcert=/etc/ca.pem", {}, False),
        (ELSEWHERE, {"PGSSLMODE": "verify-ca"}, False),
        ("dbname=x", {"PGHOST": "db.example"}, True),
        ("postgresql://u@127.0.0.1/x", {}, False),
        ("postgresql://u@[::1]:5433/x", {}, False),
        ("host=localhost", {}, False),
        ("host=/run/postgresql", {}, False),
        ("dbname=x", {}, False),
        ("service=jobs", {}, False),
    ],
)
def test_an_open_way_to_another_machine_is_a_warning(dsn, environ, is_warned):
    """A password and file names in clear text are said; TLS, loopback and sockets are fine."""
    warned = warned_of(f"type: postgres, dsn: '{dsn}', roots: {{share: /srv}}", environ=environ)
    assert [path for path, _ in warned] == (["queue.dsn"] if is_warned else [])


def test_a_change_is_named_without_its_values():
    """The key that changed, and no password."""
    old, new = (parsed(f"type: postgres, dsn: '{dsn}', roots: {{s: /srv}}")[0] for dsn in (DSN, DSN + "2"))
    assert diff_configs(old, new) == ["queue changed: dsn"]
    assert diff_configs(parsed("type: embedded")[0], new) == ["queue added"]


def test_log_lines_lose_the_dsn_and_its_password():
    """Both are among the secrets, the password as libpq will say it."""
    config, _ = parsed("type: postgres, dsn: 'postgresql://u:p%40ss@127.0.0.1/x', roots: {s: /srv}")
    assert config.secrets == ["postgresql://u:p%40ss@127.0.0.1/x", "p@ss"]


LEAKS = [
    f"queue: {{type: postgres, dsn: '{DSN}'}}",
    f"queue: {{type: postgres, dsn: '{DSN}?colour=red', roots: {{s: /srv}}}}",
    f"queue: {{type: postgres, dsn: 'host=h password={CANARY} x', roots: {{s: /srv}}}}",
    f"queue: {{type: postgres, dsn: 'host=db.example passwd = {CANARY}', roots: {{s: /srv}}}}",
    f"queue: {{type: postgres, dsn: [{CANARY}]}}",
    f"queue: {{type: postgres, dsn: {{host: h, password: {CANARY}}}}}",
    f"queue: {{type: postgres, dsn: '{DSN}', dsn_file: x}}",
    f"queue: {{type: postgres, dsn_file: '{DSN}', roots: {{s: /srv}}}}",
    f"queue: {{type: postgres, dsn_credential: '{DSN}', roots: {{s: /srv}}}}",
    f"queue: {{type: postgres, dns: '{DSN}'}}",
    f"queue: {{type: postgres, url: 'host=h user=u password={CANARY}'}}",
    f"queue: {{type: postgres, host: h, pass: {CANARY}}}",
    f"queue: {{type: '{DSN}'}}",
    f"queue: {{type: postgres, roots: {{s: '{DSN}'}}, dsn: x}}",
    f"queue: '{DSN}'",
    f"queue: {{{DSN}}}",
    f"queue: ['{DSN}']",
    f"queue:\n  type: postgres\n  dsn: {DSN}: x",
    f"queue:\n  type: postgres\n  dns: {DSN}: x",
    f"queue:\n  type: postgres\n  dsn: >-\n    host=h\n    password={CANARY}\n  x: 1",
    f'queue:\n  dsn: "host=h\n    {CANARY}',
    f"queue:\n  type: postgres\n  conn: !x {DSN}",
    "queue: {type: postgres, dsn: '${D}', role: '${D}', roots: {s: /srv}}",
    "queue: {type: postgres, dsn: '${D} x y', roots: {s: /srv}}",
    f"x-d: &d {DSN}?colour=red\nqueue: {{type: postgres, dsn: *d, roots: {{s: /srv}}}}",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_problem_shows_a_password(text):
    """However the dsn is miswritten, no problem about it or beside it holds its password."""
    with pytest.raises(ConfigError) as caught:
        parse_config(
            f"{PROVIDERS}folders: {{f: {{inbox: in, provider: p, x: 1}}}}\n{text}\n",
            folder=SRV,
            environ={"D": DSN},
        )
    problems = caught.value.problems
    assert CANARY not in "".join(map(str, problems)) + repr(problems)


def test_a_look_at_the_config_needs_no_dsn(tmp_path):
    """Where only the config is looked at, a dsn out of reach is a warning; else it is an error."""
    path = tmp_path / "c.yaml"
    path.write_text(f"{PROVIDERS}{FOLDERS}queue: {{type: postgres, dsn_credential: d, roots: {{s: .}}}}\n")
    config, warnings = load_config(path, environ={}, queue_needed=False)
    assert [(problem.path, problem.warning) for problem in warnings] == [("queue.dsn_credential", True)]
    assert config.queue.dsn.reveal() == ""
    with pytest.raises(ConfigError):
        load_config(path, environ={}, keys_needed=False)


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
@pytest.mark.parametrize("extra", ["", ", colour: red", ", dsn_file: x"])
def test_check_never_shows_the_dsn(tmp_path, capfd, monkeypatch, options, extra):
    """Well or not, in tables or JSON: no password on either stream."""
    monkeypatch.setenv("DROPSCRIBE_CONFIG", str(tmp_path / "c.yaml"))
    (tmp_path / "in").mkdir()
    section = f"type: postgres, dsn: '{DSN.replace('127.0.0.1', 'db.example')}', roots: {{s: .}}{extra}"
    (tmp_path / "c.yaml").write_text(f"state_dir: state\n{PROVIDERS}{FOLDERS}queue: {{{section}}}\n")
    (tmp_path / "c.yaml").chmod(0o644)
    code = main(["check", *options])
    shown = capfd.readouterr()
    assert (code == 0) is (not extra)
    assert "queue.dsn" in shown.out + shown.err
    assert CANARY not in shown.out + shown.err
    if options == ["--json"]:
        assert json.loads(shown.out)["ok"] is (not extra)
