"""``retry``: failed audio goes back, nothing is overwritten, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import sys

import pytest

from dropscribe.cli.commands import retry
from dropscribe.files.threads import DaemonThreads
from dropscribe.publish import return_to_inbox
from dropscribe.reports import timed_calls
from support.house import tree
from support.scene import CONFIG, add_job

CONTENT = b"RIFF the recording"


def fail(scene, path: str, original: str | None = None, folder: str = "calls", content: bytes = CONTENT):
    """An audio in failed, with its error file beside it."""
    audio = scene.drop(path, content, part="failed")
    error = {"schema": "dropscribe.error/1", "file": original or audio.name, "folder": folder, "code": "bad"}
    scene.drop(path.rpartition(".")[0] + ".error.json", json.dumps(error).encode(), part="failed")
    return audio


@pytest.mark.parametrize("by_error_file", [False, True])
def test_a_file_goes_back_under_its_old_name_and_place(scene, by_error_file):
    """The number that it got in failed is dropped, its folder is made, its error file goes."""
    audio = fail(scene, "2026/call-2.wav", original="call.wav")
    assert scene.run("retry", audio.with_suffix(".error.json") if by_error_file else audio) == 0
    assert (scene.root / "inbox/2026/call.wav").read_bytes() == CONTENT
    assert tree(scene.root / "failed") == set()


def test_a_file_that_is_named_twice_goes_back_once(scene, capsys):
    """`retry failed/*` names the recording and its error file."""
    audio = fail(scene, "call.wav")
    assert scene.run("retry", audio.with_suffix(".error.json"), audio, audio) == 0
    out, err = capsys.readouterr()
    assert "1 file is back in the inbox" in out
    assert err == ""


def test_a_companion_that_is_named_too_goes_with_its_recording(scene, capsys):
    """Wherever the shell puts it in `retry failed/*`."""
    scene.config.write_text(CONFIG + '    companions: ["{stem}.json", "{stem}.xml"]\n')
    audio = fail(scene, "call.wav")
    companions = [scene.drop(f"call.{suffix}", b"{}", part="failed") for suffix in ("json", "xml")]
    assert scene.run("retry", companions[0], audio.with_suffix(".error.json"), audio, companions[1]) == 0
    assert tree(scene.root / "failed") == set()
    assert tree(scene.root / "inbox") == {"call.wav", "call.json", "call.xml"}
    assert capsys.readouterr().err == ""


def test_a_file_that_another_command_takes_back_meanwhile_is_gone(scene, capsys, monkeypatch):
    """Two ``retry --all`` at once: whoever comes second to a file says so, and goes on with the others."""
    files = [fail(scene, name) for name in ("call.wav", "other.wav")]
    take_back = retry.return_to_inbox

    def late(rule, path, name):
        if path == b"call.wav":
            files[0].unlink()
        return take_back(rule, path, name)

    monkeypatch.setattr(retry, "return_to_inbox", late)
    assert scene.run("retry", "--all") == 74
    assert f"{files[0]}: its audio is not there any more" in capsys.readouterr().err
    assert tree(scene.root / "inbox") == {"other.wav"}


def test_a_taken_name_gets_the_next_number(scene):
    """What is in the inbox stays as it is."""
    scene.drop("call.wav", b"another")
    assert scene.run("retry", fail(scene, "call.wav")) == 0
    assert (scene.root / "inbox/call.wav").read_bytes() == b"another"
    assert (scene.root / "inbox/call-2.wav").read_bytes() == CONTENT


def test_mode_and_times_are_kept(scene):
    """The daemon knows by size and mtime that a failed file is back."""
    audio = fail(scene, "call.wav")
    os.utime(audio, ns=(10**18, 10**18))
    scene.run("retry", audio)
    assert (scene.root / "inbox/call.wav").stat().st_mtime_ns == 10**18


def test_all_takes_every_failed_file_and_nothing_else(scene, capsys):
    """Files of another rule, notes of the admin's own and hidden files stay."""
    fail(scene, "a.wav")
    fail(scene, "b/c.mp3")
    fail(scene, "theirs.wav", folder="memos")
    scene.drop("lost-its-error-file.wav", CONTENT, part="failed")
    scene.drop("README.txt", b"mine", part="failed")
    scene.drop(".dropscribe-x.tmp", b"", part="failed")
    assert scene.run("retry", "--all") == 0
    assert tree(scene.root / "inbox") == {"a.wav", "b/c.mp3", "lost-its-error-file.wav"}
    assert tree(scene.root / "failed") == {
        "theirs.wav",
        "theirs.error.json",
        "README.txt",
        ".dropscribe-x.tmp",
    }
    assert "3 files are back" in capsys.readouterr().out


@pytest.mark.parametrize("others", ["failed: failed, done: failed/sub/../done", "failed: ."])
def test_all_leaves_the_other_folders_below_failed_alone(scene, others):
    """Recordings that are done, files that wait and the queue, where they are inside the failed folder."""
    scene.config.write_text(CONFIG.partition("folders:")[0])
    with scene.config.open("a") as config:
        config.write(f"folders: {{calls: {{inbox: inbox, provider: main, {others}}}}}\n")
    kept = [scene.drop("done.wav", part="failed/done" if "done" in others else "done"), scene.drop("a.wav")]
    kept.append(scene.drop("state.wav", part="state"))
    fail(scene, "sub/call.wav")
    assert scene.run("retry", "--all") == 0
    assert all(path.exists() for path in kept)
    assert any(path.endswith("sub/call.wav") for path in tree(scene.root / "inbox"))


@pytest.mark.parametrize("name", ["failed", "link"])
def test_the_folders_below_failed_are_known_through_a_link(scene, name):
    """One rule's failed and done folders, which another path leads to."""
    (scene.root / "failed/b").mkdir(parents=True)
    (scene.root / "link").symlink_to("failed")
    (scene.root / "memos").mkdir()
    scene.config.write_text(CONFIG.partition("folders:")[0])
    with scene.config.open("a") as config:
        config.write("folders:\n  calls: {inbox: inbox, failed: failed, provider: main}\n")
        config.write(f"  memos: {{inbox: memos, failed: {name}/b, done: {name}/done, provider: main}}\n")
    kept = [scene.drop(path, CONTENT, part="failed") for path in ("b/unknown.wav", "done/memo.wav")]
    fail(scene, "b/call.wav")
    assert scene.run("retry", "--folder", "calls") == 0
    assert tree(scene.root / "inbox") == {"b/call.wav"}
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "others", ["", "  memos: {inbox: memos, done: m-done, failed: m-failed, provider: main}\n"]
)
def test_a_rules_failed_folder_may_have_been_anothers(scene, others):
    """One that has left the config, or files elsewhere now; the old name in the inbox is the queue's."""
    scene.config.write_text(CONFIG + "    done: calls-done\n" + others)
    audio = scene.drop("memo-2.wav", CONTENT, part="failed")
    with scene.queue() as store:
        add_job(store, scene, "memo.wav", folder="memos", state="failed", filed=os.fsencode(audio))
    assert scene.run("retry", "--all") == 0
    assert tree(scene.root / "inbox") == {"memo.wav"}


def test_one_rules_failed_folder_may_be_a_sub_folder_of_anothers(scene):
    """Each takes what the error files give to it; a recording that nothing names stays."""
    scene.config.write_text(CONFIG.partition("folders:")[0])
    with scene.config.open("a") as config:
        config.write("folders:\n  calls: {inbox: inbox, failed: failed, provider: main}\n")
        config.write("  memos: {inbox: memos, failed: failed/b, done: memos-done, provider: main}\n")
    (scene.root / "memos").mkdir()
    fail(scene, "b/call.wav")
    fail(scene, "b/memo.wav", folder="memos")
    scene.drop("b/unknown.wav", CONTENT, part="failed")
    assert scene.run("retry", "--folder", "calls") == 0
    assert tree(scene.root / "inbox") == {"b/call.wav"}
    assert tree(scene.root / "failed") == {"b/memo.wav", "b/memo.error.json", "b/unknown.wav"}
    assert scene.run("retry", "--folder", "memos") == 0
    assert (scene.root / "failed/b/unknown.wav").exists()


def test_one_folder_by_name(scene):
    """``--folder`` takes that rule's files; a name that is not there is told with what was meant."""
    fail(scene, "a.wav")
    assert scene.run("retry", "--folder", "calls") == 0
    assert tree(scene.root / "inbox") == {"a.wav"}


def test_a_misspelt_folder(scene, capsys):
    """Did you mean …"""
    assert scene.run("retry", "--folder", "cals") == 78
    assert "did you mean 'calls'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("--all", "--folder", "calls"), ("x.wav", "--all")])
def test_what_to_retry_must_be_said_once(scene, capsys, arguments):
    """Nothing named, or two ways at once, is a mistake of usage."""
    assert scene.run("retry", *arguments) == 2
    assert "--folder NAME" in capsys.readouterr().err


def test_a_wrong_file_does_not_stop_the_others(scene, capsys):
    """Each wrong one is told; the exit code says that something was not done."""
    elsewhere = scene.drop("call.wav", part="done")
    assert scene.run("retry", elsewhere, scene.root / "failed/none.wav", fail(scene, "a.wav")) == 74
    assert tree(scene.root / "inbox") == {"a.wav"}
    assert elsewhere.exists()
    errors = capsys.readouterr().err
    assert "is in no failed folder" in errors
    assert "not there" in errors


def test_the_failed_folder_itself_is_told_from_its_files(scene, capsys):
    """Its rule is named, as ``retry`` takes it."""
    audio = fail(scene, "call.wav")
    assert scene.run("retry", scene.root / "failed") == 74
    assert "is a failed folder: dropscribe retry --folder calls" in capsys.readouterr().err
    assert audio.exists()


def test_an_unavailable_inbox_moves_nothing(scene, capsys):
    """An unmounted share is not made, and the audio stays where it is."""
    audio = fail(scene, "call.wav")
    (scene.root / "inbox").rmdir()
    assert scene.run("retry", audio) == 74
    assert audio.exists()
    assert not (scene.root / "inbox").exists()
    assert "stays where it is" in capsys.readouterr().err


def test_an_error_file_cannot_lead_out_of_the_inbox(scene):
    """A name in it that is a path is not followed."""
    audio = fail(scene, "call.wav", original="../../call.wav")
    assert scene.run("retry", audio) == 0
    assert tree(scene.root / "inbox") == {"call.wav"}


def test_an_error_file_with_an_impossible_name_is_none_of_ours(scene, capsys):
    """A lone surrogate is in no file's name: nothing is read out of it, and nothing fails."""
    audio = fail(scene, "call.wav", original="\ud800.wav")
    error = audio.with_suffix(".error.json")
    assert scene.run("retry", error) == 74
    assert "its audio is not there" in capsys.readouterr().err
    assert scene.run("retry", "--all") == 0
    assert tree(scene.root / "inbox") == {"call.wav"}
    assert error.exists()


def test_a_symlink_in_failed_is_not_moved(scene, capsys):
    """It is not audio that dropscribe filed."""
    (scene.root / "failed/call.wav").symlink_to(scene.config)
    assert scene.run("retry", scene.root / "failed/call.wav") == 74
    assert "not a regular file" in capsys.readouterr().err


def test_another_mount_is_copied_and_only_then_removed(scene, monkeypatch):
    """EXDEV: the copy is whole, with its times, and the original is gone."""
    audio = fail(scene, "call.wav")
    os.utime(audio, ns=(10**18, 10**18))

    def other_mount(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(return_to_inbox, "move_new", other_mount)
    assert scene.run("retry", audio) == 0
    moved = scene.root / "inbox/call.wav"
    assert (moved.read_bytes(), moved.stat().st_mtime_ns) == (CONTENT, 10**18)
    assert tree(scene.root / "failed") == set()


def test_a_full_disk_leaves_the_original(scene, monkeypatch, capsys):
    """ENOSPC under the copy: the audio and its error file stay in failed."""
    audio = fail(scene, "call.wav")

    def other_mount(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(return_to_inbox, "move_new", other_mount)
    monkeypatch.setattr(return_to_inbox, "copy_verified", full)
    assert scene.run("retry", audio) == 74
    assert tree(scene.root / "failed") == {"call.wav", "call.error.json"}
    assert tree(scene.root / "inbox") == set()
    assert "No space left on device" in capsys.readouterr().err


def test_a_running_daemon_is_not_disturbed(scene):
    """While a daemon has the state directory, retry works all the same, and does not write the queue."""
    audio = fail(scene, "call.wav")
    with scene.queue() as store:
        add_job(store, scene, "call.wav", state="failed", filed=os.fsencode(audio))
        assert scene.run("retry", audio) == 0
    assert tree(scene.root / "inbox") == {"call.wav"}


def test_without_a_daemon_no_report_names_a_retried_file_as_failed(scene, capsys):
    """``status`` and ``list`` count it as waiting; the daemon would have to run to know."""
    names = ["a.wav", "b.wav", "stays.wav"]
    audios = [fail(scene, name) for name in names]
    with scene.queue() as store:
        for name, audio in zip(names, audios, strict=True):
            add_job(store, scene, name, state="failed", ended_at=1.0, filed=os.fsencode(audio))
    assert scene.run("retry", *audios[:2], scene.root / "failed" / "none.wav") == 74
    capsys.readouterr()
    assert scene.run("status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    folder = status["folders"]["calls"]
    assert (folder["failed"], folder["settling"]) == (1, 2)
    assert [failed["file"] for failed in status["newest_failed"]] == [str(audios[2])]
    assert scene.run("list", "--failed", "--json") == 0
    assert [file["place"] for file in json.loads(capsys.readouterr().out)["files"]] == [str(audios[2])]


def test_a_terminal_that_hangs_up_leaves_no_moved_file_as_failed(scene, monkeypatch, capsys):
    """The line about the file cannot be written: it has moved all the same."""
    audio = fail(scene, "call.wav")
    with scene.queue() as store:
        add_job(store, scene, "call.wav", state="failed", ended_at=1.0, filed=os.fsencode(audio))

    def hung_up(text):
        raise OSError(errno.EIO, "Input/output error", "standard output")

    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "write", hung_up)
        assert scene.run("retry", audio) == 74
    assert tree(scene.root / "inbox") == {"call.wav"}
    capsys.readouterr()
    assert scene.run("status", "--json") == 0
    folder = json.loads(capsys.readouterr().out)["folders"]["calls"]
    assert (folder["failed"], folder["settling"]) == (0, 1)


def test_run_by_root_it_has_the_rights_of_the_daemons_user_alone(scene, capfd):
    """Whose the state directory is: what that user may not move stays, with 74 and the folder's name."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    assert scene.run("retry", fail(scene, "early.wav")) == 0  # all that is imported late is imported now
    audio = fail(scene, "call.wav")
    os.chown(audio.with_suffix(".error.json"), 65534, 65534)
    (scene.root / "state").mkdir(exist_ok=True)
    os.chown(scene.root / "state", 65534, 65534)
    for folder in (scene.root, *scene.root.parents[:-2]):
        folder.chmod(0o755)
    assert _in_child(lambda: scene.run("retry", audio)) == 74
    assert audio.exists()
    for path in (scene.root / "inbox", scene.root / "failed"):
        assert f"{audio}: stays where it is: {path} may not be written by uid 65534" in capfd.readouterr().err
        os.chown(path, 65534, 65534)
        assert _in_child(lambda: scene.run("retry", audio)) == (74 if path.name == "inbox" else 0)
    assert (scene.root / "inbox/call.wav").read_bytes() == CONTENT
    assert tree(scene.root / "failed") == set()


def test_a_read_only_file_system_is_named(scene, capsys, monkeypatch):
    """Rights would not help there, though the kernel grants none on it."""
    audio = fail(scene, "call.wav")

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsencode(scene.root / "inbox"))

    monkeypatch.setattr(return_to_inbox, "make_folder", refuse)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert scene.run("retry", audio) == 74
    said = f"{audio}: stays where it is: Read-only file system ({scene.root}/inbox)"
    assert said in capsys.readouterr().err


def _in_child(call):
    """What *call* returns in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            timed_calls._threads = DaemonThreads(1, "look")  # those of the parent are not in its child
            code = call()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
