"""The audit log's own thread, queue and losses; what a line holds is in tests/integration/test_audit.py."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import structlog

from service.audit import WAITING_LINES, AuditLog
from service.metrics import Metrics
from service.settings import Settings

IMAGE = np.zeros((2, 2, 3), np.uint8)
BYTES = 10**9
PATIENCE_SECONDS = 30


def lost(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("purigate_audit_lines_lost_total")


def test_what_waits_is_written_before_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog.open(Settings(audit_file=path), Metrics()) as audit:
        assert audit
        assert audit._writer.lock
        with audit._writer.lock:  # as if the disk stood still until now
            for _ in range(2000):
                audit.record(IMAGE)
    assert len(path.read_text().splitlines()) == 2000


def test_a_full_queue_is_written_before_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    metrics = Metrics()
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        audit = stack.enter_context(AuditLog.open(Settings(audit_file=path), metrics))
        assert audit
        assert audit._writer.lock
        with audit._writer.lock:  # as if the disk stood still until now
            audit.record(IMAGE)
            while audit._waiting.qsize():  # until the writer has it and waits
                time.sleep(0.001)
            for _ in range(WAITING_LINES):
                audit.record(IMAGE)
            closing = pool.submit(stack.pop_all().close)
            with pytest.raises(TimeoutError):  # where closing does not wait for a place, this is queue.Full
                closing.result(0.1)
        closing.result(PATIENCE_SECONDS)
        assert audit._writer.stream is None, "closed"
    assert len(path.read_text().splitlines()) == 1 + WAITING_LINES
    assert lost(metrics) == 0


def test_lines_that_too_many_wait_before_are_counted_and_told_once(tmp_path: Path) -> None:
    metrics = Metrics()
    audit = AuditLog(tmp_path / "audit.jsonl", BYTES, 1, metrics)  # nothing writes, as if the disk stood still
    with structlog.testing.capture_logs() as told:
        for _ in range(WAITING_LINES + 3):
            audit.record(IMAGE)
    audit._writer.close()
    assert lost(metrics) == 3
    assert [line["event"] for line in told] == ["audit_lines_lost"]


def test_a_loss_is_told_again_after_a_line_was_written(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl", BYTES, 1, Metrics())
    with structlog.testing.capture_logs() as told:
        audit.lose("the disk is full")
        audit.lose("the disk is full")
        audit.write_again()
        audit.lose("the disk is full")
    audit._writer.close()
    assert len(told) == 2
