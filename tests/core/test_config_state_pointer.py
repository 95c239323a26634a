"""The pointer from a config to its daemon's state directory."""

from __future__ import annotations

import os

import pytest

from dropscribe.config import running
from dropscribe.config.running import canonical_paths, point_to, pointed_state_dirs, remove_pointer


@pytest.fixture
def environ(tmp_path):
    """An environment with a state home of its own."""
    return {"XDG_STATE_HOME": str(tmp_path / "xdg")}


def test_the_last_daemons_pointer_counts_until_its_end(tmp_path, environ):
    """The end of another daemon on the same config does not remove it."""
    path, first, second = (tmp_path / name for name in ("c.yaml", "first", "second"))
    point_to(first, path, environ)
    point_to(second, path, environ)
    remove_pointer(first, path, environ)
    assert list(pointed_state_dirs(path, environ)) == [second]
    remove_pointer(second, path, environ)
    assert list(pointed_state_dirs(path, environ)) == []
    assert list((tmp_path / "xdg" / "dropscribe").iterdir()) == []


def test_a_crash_within_leaving_a_pointer_costs_no_later_one(tmp_path, environ):
    """Its process had the same number, as in a container."""
    path = tmp_path / "c.yaml"
    point_to(tmp_path / "state", path, environ)
    (pointer,) = (tmp_path / "xdg" / "dropscribe").iterdir()
    pointer.rename(pointer.with_suffix(f".{os.getpid()}.tmp"))
    point_to(tmp_path / "state", path, environ)
    assert list(pointed_state_dirs(path, environ)) == [tmp_path / "state"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a link away")
def test_another_users_pointer_is_not_followed(tmp_path, environ):
    """In a folder that others may write to, they could name any directory."""
    path = tmp_path / "c.yaml"
    point_to(tmp_path / "state", path, environ)
    (pointer,) = (tmp_path / "xdg" / "dropscribe").iterdir()
    os.lchown(pointer, 65534, 65534)
    assert list(pointed_state_dirs(path, environ)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a link away")
def test_the_services_pointer_is_its_users_own(tmp_path, environ, monkeypatch):
    """A shell without the service's environment finds it; one of a third user counts for nothing."""
    service, path = tmp_path / "run", tmp_path / "c.yaml"
    service.mkdir()
    monkeypatch.setattr(running, "SERVICE_FOLDER", service)
    point_to(tmp_path / "state", path, environ | {"RUNTIME_DIRECTORY": f"/run/more:{service}"})
    (pointer,) = service.iterdir()
    os.chown(service, 4001, 4001)
    os.lchown(pointer, 4001, 4001)
    assert list(pointed_state_dirs(path, environ)) == [tmp_path / "state"]
    os.lchown(pointer, 4002, 4002)
    assert list(pointed_state_dirs(path, environ)) == []


def test_no_place_for_a_pointer_disturbs_nobody(tmp_path):
    """A home that is a file, or read-only."""
    (tmp_path / "file").write_text("")
    environ = {"XDG_STATE_HOME": str(tmp_path / "file")}
    point_to(tmp_path, tmp_path / "c.yaml", environ)
    remove_pointer(tmp_path, tmp_path / "c.yaml", environ)
    assert list(pointed_state_dirs(tmp_path / "c.yaml", environ)) == []


def test_a_link_to_the_config_is_the_same_config_only_in_its_folder(tmp_path):
    """Relative paths in a config begin at the folder of the name by which it was read."""
    (tmp_path / "other").mkdir()
    config = tmp_path / "c.yaml"
    beside, elsewhere = tmp_path / "link.yaml", tmp_path / "other" / "c.yaml"
    beside.symlink_to("c.yaml")
    elsewhere.symlink_to(config)
    assert config in canonical_paths(beside)
    assert canonical_paths(elsewhere) == (elsewhere,)
