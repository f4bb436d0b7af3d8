"""``volumes.csv`` and ``failures.csv``, over all cases of a folder of results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from monai.data import MetaTensor

from hybrid_nets.cli.records import Records
from hybrid_nets.tables import write_csv

__all__ = ["measure", "write_tables"]

VOLUMES = ("case", "label", "structure", "voxels", "volume_ml")
FAILURES = ("case", "reason")


def measure(labels: MetaTensor, structures: Mapping[int, str], pictures: bool) -> list[dict]:
    """Per structure its voxels, and its volume in mL; pictures have pixels and no volume.

    Args:
        labels: label map ``(1, *)``, with its affine in mm.
        structures: label value → name.
        pictures: whether it is one of a picture.
    """
    plain = labels.as_subclass(torch.Tensor)
    millilitres = abs(float(np.linalg.det(np.asarray(labels.affine)[:3, :3]))) / 1000
    rows = []
    for value, name in structures.items():
        voxels = int((plain == value).sum())
        volume = {} if pictures else {"volume_ml": round(voxels * millilitres, 4)}
        rows.append({"label": value, "structure": name, "voxels": voxels, **volume})
    return rows


def write_tables(records: Records) -> None:
    """Write both tables from the records, each replaced as a whole; without failures there is no ``failures.csv``."""
    found = records.all()
    volumes = [{"case": r["case"], **row} for r in found if r["status"] == "done" for row in r["volumes"]]
    write_csv(records.output / "volumes.csv", VOLUMES, volumes)
    failures = [{key: r[key] for key in FAILURES} for r in found if r["status"] == "failed"]
    if failures:
        write_csv(records.output / "failures.csv", FAILURES, failures)
    else:
        (records.output / "failures.csv").unlink(missing_ok=True)
