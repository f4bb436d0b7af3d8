from __future__ import annotations

import numpy as np
import pytest
from monai.data import MetaTensor

from hybrid_nets.synthesis.atlas import atlas_anatomy
from hybrid_nets.synthesis.data_set import decode_padded
from hybrid_nets.synthesis.folded import folded_anatomy

Anatomy = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def average() -> Anatomy:
    return atlas_anatomy()


@pytest.fixture(scope="session")
def folded() -> Anatomy:
    return folded_anatomy(0)


@pytest.fixture(scope="session")
def anatomy(folded: Anatomy) -> MetaTensor:
    """A folded brain as training has it, decoded."""
    return decode_padded(*folded)
