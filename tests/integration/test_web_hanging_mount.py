"""The pages while a folder's file system hangs: a real FUSE mount whose server is stopped."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from dropscribe.reports import timed_calls
from dropscribe.web import actions, recordings, uploads
from dropscribe.web.site import THREADS_PER_FOLDER
from support.fuse_mirror import FAR_AND_NEAR, mirrored
from support.pages import Site, serving
from support.scene import Scene, add_job, wav_bytes

pytestmark = pytest.mark.slow

FILES = 9
"""More than the threads of the pages, of a folder, and of both."""


@pytest.fixture
def scene(tmp_path):
    """A rule on a mount, and one on a local disk."""
    return Scene(tmp_path, FAR_AND_NEAR)


@pytest.fixture
def mirror(scene):
    """The mount of the rule `far`, with files in all of its folders."""
    server = scene.root / "server"
    for part in ("inbox", "done", "failed"):
        (server / part).mkdir(parents=True)
        for number in range(FILES):
            (server / part / f"{part}-{number}.wav").write_bytes(wav_bytes())
    with mirrored(server, scene.root / "mount") as mounted:
        yield mounted


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for module, name in (
        (timed_calls, "ANSWER_SECONDS"),
        (actions, "ANSWER_SECONDS"),
        (recordings, "HANG_SECONDS"),
        (uploads, "HANG_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 1.0)


def add_far(scene, store, part: str) -> list[int]:
    """Jobs of `far` that ended as *part*."""
    ended = {"folder": "far", "state": part, "ended_at": time.time()}
    return [
        add_job(store, scene, name, filed=os.fsencode(scene.root / "mount" / part / name), **ended)
        for name in (f"{part}-{number}.wav" for number in range(FILES))
    ]


def keep_status(monkeypatch, document) -> None:
    """The pages show *document*: the daemon's status waits for no disk, as the command's has to."""

    async def status(_):
        return document

    monkeypatch.setattr(Site, "status", status)


async def test_a_mount_that_hangs_costs_its_own_pages_only(scene, mirror, monkeypatch):
    """Each of its file pages says so within seconds; all others are answered at once meanwhile."""
    with scene.queue() as store:
        ids = add_far(scene, store, "done") + add_far(scene, store, "failed")
        keep_status(monkeypatch, await Site(scene).status())
        async with serving(scene) as site, site.client() as client:
            mirror.freeze()
            stuck = [asyncio.create_task(client.get(f"/files/{job_id}")) for job_id in ids]
            await asyncio.sleep(0.5)
            began = time.monotonic()
            for path in ("/", "/folders/near", "/folders/far", "/search?q=hello"):
                assert (await client.get(path)).status_code == 200
            assert time.monotonic() - began < 5
            for answer in await asyncio.gather(*stuck):
                assert answer.status_code == 200
                assert "file system does not answer" in answer.text
            audio = await client.get(f"/files/{ids[0]}/audio")
            assert (audio.status_code, "does not answer" in audio.text) == (503, True)
            mirror.thaw()
            async with asyncio.timeout(30):
                while (await client.get(f"/files/{ids[0]}/audio")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def test_a_file_page_says_so_too_where_players_wait_for_the_mount(scene, mirror):
    """They have all threads of the folder, so nothing can be read for the page."""
    with scene.queue() as store:
        job_id, *_ = add_far(scene, store, "done")
        async with serving(scene) as site, site.client() as client:
            mirror.freeze()
            players = [client.get(f"/files/{job_id}/audio") for _ in range(THREADS_PER_FOLDER)]
            assert {answer.status_code for answer in await asyncio.gather(*players)} == {503}
            answer = await client.get(f"/files/{job_id}")
            assert (answer.status_code, "does not answer" in answer.text) == (503, True)
            mirror.thaw()


async def test_a_recording_is_let_go_where_its_disk_hangs(scene, mirror, monkeypatch):
    """A listener is cut off after a bounded time; the file is closed once the disk answers."""
    monkeypatch.setattr("dropscribe.web.recordings.READ_SECONDS", 0.5)
    monkeypatch.setattr("dropscribe.web.recordings.BLOCK_BYTES", 4096)
    (scene.root / "server/done/done-0.wav").write_bytes(bytes(50_000_000))
    with scene.queue() as store:
        ids = add_far(scene, store, "done")
        async with serving(scene) as site, site.client() as client:
            async with client.stream("GET", f"/files/{ids[0]}/audio") as answer:
                blocks = answer.aiter_raw()
                await anext(blocks)
                mirror.freeze()
                with pytest.raises(Exception, match="peer closed"):
                    async for _ in blocks:
                        pass
            assert (await client.get("/folders/near")).status_code == 200
            mirror.thaw()
            await until(lambda: not open_below(scene.root / "mount"))


def open_below(folder) -> list[str]:
    """The files of this process that are open below *folder*."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    return [name for name in names if name.startswith(f"{folder}/")]


async def until(condition, seconds=30.0):
    """Return once *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # it depends on threads and the disk
            await asyncio.sleep(0.02)


async def test_uploads_to_a_mount_that_hangs_are_refused(scene, mirror):
    """Each gets 503 after a bounded time, and no other page waits; nothing stays behind in the inbox."""
    files = [("file", ("new.wav", wav_bytes()))]
    async with serving(scene, uploads=True) as site, site.client() as client:
        mirror.freeze()
        answers = [asyncio.create_task(client.post("/folders/far/upload", files=files)) for _ in range(FILES)]
        await asyncio.sleep(0.3)
        answer = await client.post("/folders/near/upload", files=files)
        assert (answer.status_code, answer.text) == (200, "new.wav\n")
        for answer in await asyncio.gather(*answers):
            assert (answer.status_code, "does not answer" in answer.text) == (503, True)
        mirror.thaw()
        await until(lambda: not open_below(scene.root / "mount"))
        assert "new.wav" not in os.listdir(scene.root / "server/inbox")


async def test_an_upload_whose_mount_hangs_halfway_leaves_nothing(scene, mirror):
    """It is refused, and its hidden file is removed once the mount answers."""
    head = b"POST /folders/far/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    part = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="half.wav"\r\n\r\n'
    inbox = scene.root / "server/inbox"

    def hidden() -> list[str]:
        return [name for name in os.listdir(inbox) if name.startswith(".dropscribe-upload-")]

    async with serving(scene, uploads=True) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(head + b"Content-Type: multipart/form-data; boundary=b\r\n" + part + b"half")
        await until(hidden)
        mirror.freeze()
        writer.write(bytes(50_000))
        assert b" 503 " in await asyncio.wait_for(reader.readline(), 30)
        writer.close()
        mirror.thaw()
        await until(lambda: not hidden())


async def test_a_retry_on_a_mount_that_hangs_is_refused(scene, mirror):
    """All the files of a page are counted as refused after one wait."""
    with scene.queue() as store:
        ids = add_far(scene, store, "failed")
        async with serving(scene) as site, site.client() as client:
            mirror.freeze()
            began = time.monotonic()
            answer = await client.post("/folders/far/retry", data={"ids": ",".join(map(str, ids))})
            assert answer.headers["location"] == f"/folders/far?did=refused&n={FILES}"
            assert time.monotonic() - began < 5
            mirror.thaw()
