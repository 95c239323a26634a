"""Which file is the config: the order of the search, and whose file is believed."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

import dropscribe.config.find as find_module
from dropscribe.config.find import absolute_path, default_state_dir, find_config
from dropscribe.core.errors import ConfigError

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's files")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An own working directory, and a system config that is not there yet."""
    folder = tmp_path / "here"
    folder.mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(find_module, "SYSTEM_CONFIG", tmp_path / "etc.yaml")
    return folder


def environ(folder, **more):
    """An environment whose home is beside *folder*."""
    return {"HOME": str(folder.parent / "home"), **more}


def problems_of(folder, explicit=None, **more):
    """The messages of a search that finds nothing."""
    with pytest.raises(ConfigError) as refused:
        find_config(explicit, environ=environ(folder, **more))
    return [problem.message for problem in refused.value.problems]


def test_the_config_is_looked_for_in_order(here):
    """-c, the variable, ./dropscribe.yaml, the user's, the system's."""
    user = here.parent / "home/.config/dropscribe/config.yaml"
    user.parent.mkdir(parents=True)
    for path in (here / "given.yaml", here / "named.yaml", here / "dropscribe.yaml", user):
        path.touch()
    (here.parent / "etc.yaml").touch()
    named = environ(here, DROPSCRIBE_CONFIG="named.yaml")
    assert find_config("given.yaml", environ=named) == Path("given.yaml")
    assert find_config(None, environ=named) == Path("named.yaml")
    assert find_config(None, environ=environ(here)) == Path("dropscribe.yaml")
    (here / "dropscribe.yaml").unlink()
    assert find_config(None, environ=environ(here)) == user
    user.unlink()
    assert find_config(None, environ=environ(here)) == here.parent / "etc.yaml"


def test_the_users_folder_is_that_of_xdg(here):
    """$XDG_CONFIG_HOME stands for ~/.config; a relative one counts for nothing, as its specification says."""
    (here / "xdg/dropscribe").mkdir(parents=True)
    (here / "xdg/dropscribe/config.yaml").touch()
    found = find_config(None, environ=environ(here, XDG_CONFIG_HOME=str(here / "xdg")))
    assert found == here / "xdg/dropscribe/config.yaml"
    assert len(problems_of(here, XDG_CONFIG_HOME="xdg")) == 1


@pytest.mark.parametrize("home", [{"HOME": ""}, {"HOME": "home"}, {"HOME": "."}, {}])
def test_a_home_that_is_no_absolute_path_counts_for_nothing(here, monkeypatch, home):
    """./.config belongs to anybody: the home in the password database is taken."""
    for folder in (here, here / "home"):
        (folder / ".config/dropscribe").mkdir(parents=True)
        (folder / ".config/dropscribe/config.yaml").touch()
    listed = here.parent / "listed"
    user = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd((*user[:5], str(listed), user.pw_shell)))
    with pytest.raises(ConfigError) as refused:
        find_config(None, environ=home)
    assert f"{listed}/.config" in refused.value.problems[0].message
    assert default_state_dir(here, home) == listed / ".local/state/dropscribe"
    assert absolute_path("~/x", here, home) == listed / "x"


def test_without_one_it_is_said_where_it_was_looked_for(here):
    """The error names all places and the command that writes a config."""
    with pytest.raises(ConfigError) as refused:
        find_config(None, environ=environ(here))
    (problem,) = refused.value.problems
    home = here.parent / "home/.config/dropscribe/config.yaml"
    etc = here.parent / "etc.yaml"
    assert problem.message == f"no config: looked for ./dropscribe.yaml, {home}, {etc}"
    assert "dropscribe init" in problem.hint


def test_a_named_file_must_be_there(here):
    """What was asked for is not replaced by something else."""
    (here / "dropscribe.yaml").touch()
    assert problems_of(here, "nowhere.yaml") == ["-c names nowhere.yaml, and there is no such file"]
    said = problems_of(here, DROPSCRIBE_CONFIG="nowhere.yaml")
    assert said == ["$DROPSCRIBE_CONFIG names nowhere.yaml, and there is no such file"]


@pytest.mark.parametrize("folder_mode", [0o777, 0o1777, 0o775])
def test_a_config_in_a_folder_of_everybody_is_skipped(here, folder_mode):
    """Others could choose there where keys and recordings go; it is said if nothing else is found."""
    (here / "dropscribe.yaml").touch()
    os.chown(here, -1, 12345) if os.geteuid() == 0 else None
    here.chmod(folder_mode)
    if os.geteuid() != 0 and folder_mode == 0o775:
        pytest.skip("the caller's own group may be a private one")
    _, skipped = problems_of(here)
    assert skipped.startswith("skipped: other users may write to its folder")
    (here.parent / "etc.yaml").touch()
    assert find_config(None, environ=environ(here)) == here.parent / "etc.yaml"


@is_root
def test_another_users_config_is_skipped(here):
    """Root in somebody's home does not run on his config; -c still names it."""
    path = here / "dropscribe.yaml"
    path.touch()
    os.chown(path, 65534, 65534)
    assert problems_of(here)[1] == "skipped: the file belongs to another user (uid 65534)"
    assert find_config("dropscribe.yaml", environ=environ(here)) == Path("dropscribe.yaml")


@is_root
def test_a_place_that_cannot_be_read_counts_as_absent(here):
    """A service's user in root's folder falls back to the system's config, and hears why if there is none."""
    (here / "dropscribe.yaml").touch(mode=0o600)
    home = here.parent / "home/.config/dropscribe"
    home.mkdir(parents=True)
    (home / "config.yaml").touch()
    (here.parent / "home").chmod(0o700)
    for folder in (here.parent, *here.parent.parents[:-2]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        said = problems_of(here)
        os.seteuid(0)
        (here.parent / "etc.yaml").touch(mode=0o644)
        os.seteuid(65534)
        found = find_config(None, environ=environ(here))
    finally:
        os.seteuid(0)
    assert said[1:] == ["skipped: it cannot be read: Permission denied"] * 2
    assert found == here.parent / "etc.yaml"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_counts_as_absent(here, make):
    """A pipe is not waited for, and a container's engine makes a folder in the place of a missing file."""
    make("dropscribe.yaml")
    assert problems_of(here)[1:] == ["skipped: it cannot be read: not a regular file"]
    (here.parent / "etc.yaml").touch()
    assert find_config(None, environ=environ(here)) == here.parent / "etc.yaml"
