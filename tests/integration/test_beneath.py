"""Users' folders are reached by descriptor: no link below a root is followed, few above it."""

from __future__ import annotations

import os
import stat

import pytest

from dropscribe.files import beneath
from dropscribe.files.beneath import UnsafePathError


@pytest.fixture(params=["in one call", "step by step"], autouse=True)
def _way(request, monkeypatch):
    """Both ways: the second is for kernels and containers without openat2."""
    if request.param == "step by step":
        monkeypatch.setattr(beneath, "_open_at_once", lambda *_: -1)


@pytest.fixture
def root(tmp_path):
    """An open folder with a sub-folder, a file and links to what is outside."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/sub/file").write_bytes(b"ours")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/file-link").symlink_to(tmp_path / "outside/secret")
    descriptor = beneath.open_root(os.fsencode(tmp_path / "root"))
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    "path", [b"link", b"link/x", b"sub/../sub", b"..", b".", b"sub//x", b"/etc", b"a\0b"]
)
def test_nothing_leads_out_of_a_root(root, path, tmp_path):
    """Neither links nor ``..``, and nothing is made through them."""
    for call in (beneath.open_folder, beneath.make_folder):
        with pytest.raises(UnsafePathError):
            call(root, path)
    assert sorted(os.listdir(tmp_path / "outside")) == ["secret"]


def test_only_a_regular_file_is_opened(root, tmp_path):
    """A link, a folder and a pipe are refused, and a pipe blocks nobody."""
    os.mkfifo(tmp_path / "root/pipe")
    for name in (b"file-link", b"sub", b"pipe", b"sub/file"):
        with pytest.raises(OSError, match=r"regular|link|symbolic|path"):
            beneath.open_file(root, name)
    with beneath.closing(beneath.open_folder(root, b"sub")) as sub:
        os.close(beneath.open_file(sub, b"file"))


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2775, 0o777])
def test_a_folder_that_is_made_has_its_roots_mode(tmp_path, mode):
    """Whatever the umask is; a folder that was there keeps its own."""
    (tmp_path / "root/old").mkdir(parents=True)
    (tmp_path / "root/old").chmod(0o711)
    (tmp_path / "root").chmod(mode)
    with beneath.closing(beneath.open_root(os.fsencode(tmp_path / "root"))) as root:
        for path in (b"a/b", b"old/c"):
            os.close(beneath.make_folder(root, path))
    for path in ("a", "a/b", "old/c"):
        assert stat.S_IMODE((tmp_path / "root" / path).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "root/old").stat().st_mode) == 0o711


@pytest.mark.parametrize("where", ["root itself", "above"])
def test_a_link_to_a_root_is_followed_only_where_root_or_we_made_it(tmp_path, where):
    """A dropper's link in place of an inbox leads nowhere; the admin's own does."""
    if os.geteuid() != 0:
        pytest.skip("giving a link away needs root")
    (tmp_path / "real/inbox").mkdir(parents=True)
    link = tmp_path / ("linked" if where == "above" else "real/link")
    link.symlink_to(tmp_path / "real" if where == "above" else "inbox")
    path = os.fsencode(link / "inbox" if where == "above" else link)
    with beneath.closing(beneath.open_root(path)) as root:
        assert os.path.samestat(os.fstat(root), (tmp_path / "real/inbox").stat())
    os.chown(link, 1234, 1234, follow_symlinks=False)
    with pytest.raises(UnsafePathError, match="uid 1234"):
        beneath.open_root(path)


def test_links_in_a_circle_are_an_error(tmp_path):
    """Not an endless walk."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic"):
        beneath.open_root(os.fsencode(tmp_path / "a"))
