from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # behind tests, which has a conftest of that name as well


@pytest.fixture(scope="session")
def organs(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Words of the command line that select mobileutr, made small, with weights of its own."""
    from command import make_weights, tiny_options, words

    weights = make_weights("mobileutr", tmp_path_factory.mktemp("weights"))
    return ["segment", "--bundle", "mobileutr", *words(tiny_options("mobileutr", weights))]
