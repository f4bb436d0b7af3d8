from __future__ import annotations

from pathlib import Path

import pytest

from hybrid_nets.phantoms import cache_dir


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_NETS_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere")
    monkeypatch.delenv("HYBRID_NETS_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "hybrid_nets"
