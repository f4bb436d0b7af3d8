from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT
from draw_networks import DRAWINGS, draw_networks
from network_graph import Drawing, look_at
from torch import nn

from hybrid_nets import InputError


def test_arrows_are_what_reads_what() -> None:
    _, arrows, _ = look_at(DRAWINGS["mobileutr"])
    into = {target: {source for source, other in arrows if other == target} for _, target in arrows}
    assert into["fuse3"] == {"reduce", "stage3"} and into["stage2"] == {"stage1"} and into["stem"] == {"input"}
    _, arrows, _ = look_at(DRAWINGS["hylt_level"])
    assert {source for source, target in arrows if target == "encoder.1"} == {
        *("encoder.1.convs", "encoder.1.expand", "encoder.1.transformer")
    }


def test_a_module_that_is_not_run_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1))
    network.unused = nn.Identity()
    network.forward = lambda x: network[0](x)
    with pytest.raises(InputError, match="unused did not run"):
        look_at(Drawing(lambda: network, (1, 8, 8), "", {"input": (0, 0), "unused": (0, 1)}))


def test_every_drawing_is_in_the_documents(tmp_path: Path) -> None:
    draw_networks("dca", out=tmp_path)
    assert (tmp_path / "network_dca.png").stat().st_size > 10_000
    assert {f"network_{name}" for name in DRAWINGS} <= {file.stem for file in (ROOT / "docs" / "images").glob("*.png")}
