"""Failed audio that is put back by hand: its error file goes once the audio is in the inbox alone."""

from __future__ import annotations

import shutil
import time

import pytest

from support.daemon_process import Installation
from support.faults import mounted, unmount
from support.house import digest, tree
from support.waiting import until_true


@pytest.fixture
def site(tmp_path, vendor):
    """An installation with one failed file; the provider takes it from now on."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"rescan": "200ms"})
    site.drop("2026/one.wav", b"one")
    till.refused = {digest(b"one")}
    assert site.run_once() == 3
    till.refused = set()
    return site


def put_back(site, *, removes=True):
    """As cp does, which sets another time; and rm."""
    shutil.copyfile(site.failed / "2026/one.wav", site.inbox / "2026/one.wav")
    if removes:
        (site.failed / "2026/one.wav").unlink()


def test_a_copy_that_replaces_the_original_is_a_retry(site):
    """Before the daemon sees it."""
    put_back(site)
    assert site.run_once() == 0
    assert tree(site.failed) == set()
    assert site.status()["failed"] == 0


@pytest.mark.slow
def test_an_original_that_goes_after_its_copy_was_taken_leaves_no_error_file(site):
    """Within an hour; while it is there it has failed."""
    put_back(site, removes=False)
    with site.start() as process:
        process.until_logged("file.done")
        assert tree(site.failed) == {"2026/one.wav", "2026/one.error.json"}
        assert site.status()["failed"] == 1
        (site.failed / "2026/one.wav").unlink()
        until_true(lambda: tree(site.failed) == set())
        process.until_logged("job.taken_back")
        assert site.status()["failed"] == 0
        assert process.stop() == 0


def test_a_failed_folder_that_is_away_keeps_its_files_failed(site):
    """An unmounted share is no proof that the audio has gone from there."""
    put_back(site, removes=False)
    site.failed.rename(site.root / "away")
    assert site.run_once() == 0
    (site.root / "away").rename(site.failed)
    assert tree(site.failed) == {"2026/one.wav", "2026/one.error.json"}
    assert site.status()["failed"] == 1


@pytest.mark.slow
def test_an_unmounted_share_of_failed_keeps_its_files_failed(tmp_path, vendor):
    """Its bare mount point is a folder without the audio."""
    emulator, till = vendor
    site = Installation(tmp_path, emulator.url, rule={"rescan": "200ms"})
    till.refused = {digest(b"one")}
    with mounted(site.failed, "-t", "tmpfs", "none"), site.start_ready() as process:
        site.drop("2026/one.wav", b"one")
        process.until_logged("file.failed")
        till.refused = set()
        put_back(site, removes=False)
        process.until_logged("file.done")
        unmount(site.failed)
        for number in range(3):
            site.drop(f"{number}.wav", b"more %d" % number)
            process.until_logged("file.done", number + 2)
            time.sleep(0.3)  # a listing
        assert not process.logged("job.taken_back")
        assert site.status()["failed"] == 1
        assert process.stop() == 0
