"""The series of /metrics and of the textfile collector."""

from __future__ import annotations

import os
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from dropscribe.core.errors import StoreBusy
from dropscribe.service.metrics import MOST_REASONS, Metrics, MetricsFile, write_metrics_file

FOLDER = {
    "available": True, "watch": "native", "settling": 1, "queued": 2, "transcribing": 3, "deferred": 4,
    "held": 5, "publishing": 6, "blocked": 7, "done": 12, "failed": 1, "oldest_waiting": 61.5, "hold": None,
}  # fmt: skip
STATUS = {
    "schema": "dropscribe.status/1",
    "running": True,
    "folders": {
        "calls": FOLDER,
        "memos": {**FOLDER, "available": False, "oldest_waiting": None, "hold": {"reason": "x"}},
    },
    "providers": {
        "pulse": {"state": "held", "reason": "http_401", "in_flight": 0},
        "mine": {"state": "ready", "reason": None, "in_flight": 2},
    },
}


@pytest.fixture
def metrics():
    """Metrics that have counted nothing yet."""
    return Metrics("1.2.3")


def series(metrics: Metrics, status=STATUS) -> dict[tuple[str, ...], float]:
    """(name, *label values) → value, of the names that are ours, as Prometheus' own parser reads them."""
    families = text_string_to_metric_families(metrics.render(status).decode())
    return {
        (sample.name.removeprefix("dropscribe_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("dropscribe_")
    }


def test_the_queue_is_read_off_the_status(metrics):
    """Each waiting state is a series; a rule that is away or held says so; no oldest file is age 0."""
    seen = series(metrics)
    states = ("settling", "queued", "transcribing", "deferred", "held", "publishing", "blocked")
    assert [seen["queue_files", "calls", state] for state in states] == [1, 2, 3, 4, 5, 6, 7]
    assert (seen["oldest_waiting_seconds", "calls"], seen["oldest_waiting_seconds", "memos"]) == (61.5, 0)
    assert (seen["watch_ok", "calls"], seen["watch_ok", "memos"]) == (1, 0)
    assert (seen["folder_held", "calls"], seen["folder_held", "memos"]) == (0, 1)
    assert (seen["provider_held", "pulse"], seen["provider_held", "mine"]) == (1, 0)
    assert seen["provider_in_flight", "mine"] == 2


def test_a_folder_that_is_gone_leaves_no_gauge_behind(metrics):
    """After a reload without it, a rule's queue is no longer shown as if it still waited."""
    series(metrics)
    assert not [key for key in series(metrics, {"folders": {}}) if "calls" in key]


def test_what_is_counted(metrics):
    """Attempts, files, retries and what intake saw end in the series of their names."""
    metrics.observe_attempt("pulse", 1.5, upload_bytes=1000)
    metrics.observe_attempt("pulse", 0.25)
    metrics.observe_retry("pulse", "http_503")
    metrics.observe_filed("calls", "done", at=1000.5, provider="pulse", audio_seconds=5.25)
    metrics.observe_filed("calls", "failed", at=1001.0)
    metrics.observe_config(is_taken=True, at=900.0)
    metrics.observe_config(is_taken=False, at=950.0)
    counted = {"maybe_paid_twice": 2, "found_without_hint": 3, "hint_overflows": 1, "suspect": 4}
    seen = series(metrics, {"folders": {"calls": counted}})
    assert {
        ("build_info", "1.2.3"): 1,
        ("request_seconds_count", "pulse"): 2,
        ("request_seconds_sum", "pulse"): 1.75,
        ("upload_bytes_total", "pulse"): 1000,
        ("retries_total", "pulse", "http_503"): 1,
        ("maybe_paid_twice_total", "calls"): 2,
        ("files_total", "calls", "done"): 1,
        ("files_total", "calls", "failed"): 1,
        ("audio_seconds_total", "calls", "pulse"): 5.25,
        ("last_success_timestamp_seconds", "calls"): 1000.5,
        ("found_without_hint_total", "calls"): 3,
        ("hint_overflows_total", "calls"): 1,
        ("suspect_total", "calls"): 4,
        ("config_reload_ok",): 0,
        ("config_reload_timestamp_seconds",): 900,
    }.items() <= seen.items()


def test_series_exist_before_their_first_event(metrics):
    """A rate over the first failure needs the zero before it."""
    metrics.introduce(["calls"], ["pulse"])
    seen = series(metrics)
    zeros = [
        ("files_total", "calls", "failed"),
        ("request_seconds_count", "pulse"),
        ("found_without_hint_total", "calls"),
    ]
    assert [seen[key] for key in zeros] == [0, 0, 0]


@pytest.mark.parametrize("reason", ["", "a b", 'x"\n', "é", "\ud800", "x" * 65])
def test_an_odd_reason_is_other(metrics, reason):
    """A provider's code is the provider's word: it neither breaks the output nor becomes a label at will."""
    metrics.observe_retry("pulse", reason)
    assert series(metrics)["retries_total", "pulse", "other"] == 1


def test_reasons_are_bounded(metrics):
    """A provider that invents a code per file cannot fill the memory of Prometheus."""
    for number in range(MOST_REASONS + 50):
        metrics.observe_retry("pulse", f"code_{number}")
    retries = {key: value for key, value in series(metrics).items() if key[0] == "retries_total"}
    assert len(retries) == MOST_REASONS + 1
    assert retries["retries_total", "pulse", "other"] == 50


def test_the_textfile_is_replaced_whole(metrics, tmp_path):
    """The collector reads the old file or the new one, never half; it may read it at all."""
    path = tmp_path / "dropscribe.prom"
    path.write_bytes(b"old")
    write_metrics_file(path, metrics.render(STATUS))
    assert b"dropscribe_queue_files" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_device_is_not_replaced(tmp_path):
    """``file: /dev/null`` made a file of it, for the whole machine."""
    path = tmp_path / "null"
    os.mkfifo(path)
    with pytest.raises(OSError, match="is not a file"):
        write_metrics_file(path, b"x")
    assert os.listdir(tmp_path) == ["null"]
    assert path.is_fifo()


def test_a_textfile_that_cannot_be_written_leaves_nothing(tmp_path):
    """Where the rename fails no temporary file stays behind."""
    path = tmp_path / "dropscribe.prom"
    path.mkdir()
    with pytest.raises(OSError, match=path.name):
        write_metrics_file(path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


async def test_a_queue_that_cannot_be_read_is_said_once(tmp_path):
    """Another program has the database locked: that passes, and the daemon waits for it."""
    answers = [StoreBusy("queue.db", "is locked"), StoreBusy("queue.db", "is locked"), b"x"]

    async def render() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, StoreBusy):
            raise answer
        return answer

    file = MetricsFile(tmp_path / "dropscribe.prom", render)
    with capture_logs() as lines:
        for _ in range(3):
            await file.write()
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("metrics.unwritten", "queue.db: is locked")
    ]
    assert (tmp_path / "dropscribe.prom").read_bytes() == b"x"
