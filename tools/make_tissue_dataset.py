"""Make a brain-tissue data set in MSD layout from the real brain MRI that the PyPI package nilearn ships.

    python tools/make_tissue_dataset.py OUT

The image is the ICBM 2009a non-linear symmetric MNI152 average of T1-weighted brains at 1 mm, skull-stripped, with maps
of grey and white matter (Fonov et al., NeuroImage 2011), read from nilearn's installed files: nothing is downloaded.
Labels: 0 background, 1 CSF, 2 grey matter, 3 white matter; a brain voxel gets the tissue with the largest share, CSF
having what the two maps leave. There is one volume, so it is training, validation and test case in one: good to see
the whole way run on a real scan, not to judge a network.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import fire
import nibabel as nib
import numpy as np

from hybrid_nets import InputError
from hybrid_nets.atomic import replacing

LABELS = {"0": "background", "1": "CSF", "2": "grey matter", "3": "white matter"}


def make_tissue_dataset(out: str) -> None:
    """Write the data set to folder OUT, which must be new or empty."""
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give a new folder.")
    spec = find_spec("nilearn")
    if spec is None:
        raise InputError("nilearn is not installed; run pip install nilearn.")
    source = Path(spec.origin).parent / "datasets" / "data"
    t1, grey, white = (
        nib.load(source / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") for name in ("t1", "gm", "wm")
    )
    shares = np.stack([np.asarray(map_.dataobj, dtype=np.int16) for map_ in (grey, white)])
    image = np.asarray(t1.dataobj)
    labels = np.where(image > 0, 1 + np.argmax(np.stack([255 - shares.sum(0), *shares]), axis=0), 0)
    for name, array in (("imagesTr", image), ("labelsTr", labels), ("imagesTs", image)):
        with replacing(folder / name / "mni152.nii.gz") as temporary:
            nib.save(nib.Nifti1Image(array.astype(np.uint8), t1.affine), temporary)
    case = {"image": "./imagesTr/mni152.nii.gz", "label": "./labelsTr/mni152.nii.gz"}
    content = {
        "name": "MNI152 tissues",
        "description": "One volume, training, validation and test case in one; see tools/make_tissue_dataset.py.",
        "reference": "Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 2011",
        "licence": "as stated with the ICBM 152 non-linear atlases, version 2009",
        "release": "nilearn",
        "tensorImageSize": "3D",
        "modality": {"0": "T1"},
        "labels": LABELS,
        "numTraining": 1,
        "numTest": 1,
        "training": [case],
        "validation": [case],
        "validation_repeats_training": True,
        "test": ["./imagesTs/mni152.nii.gz"],
    }
    with replacing(folder / "dataset.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    print(f"wrote {folder}")


if __name__ == "__main__":
    try:
        fire.Fire(make_tissue_dataset)
    except InputError as error:
        sys.exit(f"error: {error}")
