"""Real writers, the short version; tests/system/writers_trial.py is the long one."""

from __future__ import annotations

import shutil

import pytest

from support.recording_library import STATED
from support.writers import WRITERS, Pace
from support.writers_trial import WritersTrial


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_real_writers_leave_nothing_torn_and_nothing_sent_twice(tmp_path):
    """Recorders, copies, uploads that break off and are resumed: each recording is sent once, whole."""
    trial = WritersTrial(tmp_path, len(STATED), Pace(pause_seconds=(1.0, 2.0), live_seconds=2.0))
    figures = trial.run(WRITERS)
    assert len(figures) == sum(writer.is_available for writer in WRITERS)
    assert [
        (each.name, found)
        for each in WRITERS
        if each.name in figures and (found := figures[each.name].breaches(each))
    ] == []
