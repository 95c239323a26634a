"""The shipped unit under a real systemd: one boot, in which the service lives through everything.

The script inside (support/systemd_guest.py) does what an admin does and notes what it sees.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from support import nspawn, systemd_guest

HIGHEST_EXPOSURE = 1.2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> dict[str, Any]:
    """What was seen inside."""
    if obstacle := nspawn.find_obstacle():
        pytest.skip(obstacle)
    try:
        importlib.import_module("dropscribe.cli.commands.run")
    except ModuleNotFoundError as error:
        pytest.skip(f"the command cannot be imported: {error}")
    folder = tmp_path_factory.mktemp("machine")
    boot = nspawn.boot(folder, systemd_guest.KEY)
    seen = folder / "results/facts.json"
    assert seen.exists(), f"the machine did not come to its end:\n{boot.stdout[-5000:]}"
    facts: dict[str, Any] = json.loads(seen.read_text())
    print((folder / "results/journal.txt").read_text()[-20_000:])  # noqa: T201  # shown where a claim fails
    assert "broke" not in facts, facts["broke"]
    return facts


def test_start_waits_for_ready(facts):
    """`systemctl start` returns when the daemon has said READY, with a status line to show."""
    assert (facts["start"], facts["start_state"]) == (0, ["active", "running", True])


def test_a_file_is_transcribed_under_the_sandbox(facts):
    """Inbox to done, with the key from the credential, inside everything that the unit forbids."""
    assert facts["transcribed"] is True
    assert facts["authorizations"] == [f"Bearer {systemd_guest.KEY}"]


def test_a_good_reload_takes(facts):
    """`systemctl reload` with a new folder: it is served, by the same process."""
    assert facts["good_reload"] == 0
    assert facts["good_reload_takes"] is True
    assert facts["good_reload_same_process"] is True


def test_a_bad_reload_is_refused(facts):
    """With a broken config the reload fails and the daemon works on, even when it gets the signal."""
    assert facts["bad_reload"] != 0
    assert facts["bad_reload_untouched"] is True
    assert facts["bad_reload_ends"] is True
    assert facts["bad_reload_same_process"] is True


def test_stop_drains(facts):
    """What is in flight is finished and filed before a clean exit."""
    assert facts["stop_in_flight"] is True
    assert (facts["stop"], facts["stop_state"]) == (0, ["inactive", "success", "0"])
    assert facts["stop_drained"] is True


def test_a_broken_config_does_not_restart_loop(facts):
    """Exit 78 ends it: no restart will mend a config."""
    assert facts["broken_start"] != 0
    assert facts["broken_state"] == ["failed", "78", "0"]


def test_a_hang_ends_in_a_traceback_and_a_restart(facts):
    """The watchdog kills a daemon that hangs; the journal says where it hung; the new one works."""
    assert (facts["start_again"], facts["hang_restarted"]) == (0, True)
    assert facts["hang_restarts"] == 1
    assert facts["hang_said_by_systemd"] is True
    assert facts["hang_traceback"] is True
    assert facts["hang_recovered"] is True


def test_the_exposure_of_the_running_unit(facts):
    """At most 1.2 of 10, with the test's own folder opened."""
    assert facts["exposure"] <= HIGHEST_EXPOSURE


def test_the_journal(facts):
    """Events are native fields of ours; the key is in none of them."""
    assert {"DROPSCRIBE_EVENT", "DROPSCRIBE_FOLDER"} <= set(facts["journal_fields"])
    assert facts["key_in_journal"] is False


def test_state_is_private(facts):
    """Nobody else reads the queue and the answers that it keeps."""
    assert facts["state_dir"] == "0o700"
