"""What is logged of an epoch's time."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator

import pytest
from ignite.engine import Engine

from hybrid_nets.progress import ProgressHandler


class SlowLoader:
    """Two batches, each of which is waited for."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[int]:
        for batch in range(2):
            time.sleep(0.2)
            yield batch


@pytest.mark.parametrize("output", [[{"loss": 1.0}], [{"pred": 1.0}]])
def test_the_share_of_waiting_is_logged_for_trainers(output: list[dict], caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(lambda engine, batch: output)
    ProgressHandler("Testing").attach(engine)
    with caplog.at_level(logging.INFO, "hybrid_nets.progress"):
        engine.run(SlowLoader(), max_epochs=2)
    logged = [record.getMessage() for record in caplog.records if record.name == "hybrid_nets.progress"]
    found = [re.fullmatch(r"Epoch (\d): [\d.]+ s, (\d+) % of it waiting for data\.", text) for text in logged]
    expected = [1, 2] if "loss" in output[0] else []
    assert [int(match[1]) for match in found] == expected and all(int(match[2]) > 50 for match in found)
