"""Write label maps so that a reader never sees half of one, in the space of the image they came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.config import NdarrayOrTensor
from monai.data import ITKWriter, NibabelWriter
from monai.data.utils import to_affine_nd
from monai.transforms import Transform

from hybrid_nets.atomic import replacing
from hybrid_nets.conventions import SYNONYMS
from hybrid_nets.errors import InputError

__all__ = ["AtomicNibabelWriter", "AtomicPictureWriter", "case_name"]

# Fields of a NIfTI header that say where voxels lie.
PLACE = ("sform_code", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c", "quatern_d")
PLACE += ("qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "xyzt_units")


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer, by way of a temporary name, that keeps every spatial axis and the source's exact place.

    MONAI's own drops a trailing axis of one voxel with the channel axis, writes whatever rounding is left in the affine
    after transforms were undone, and makes sform and qform of it, of which the latter can't be sheared. This one
    writes the sform, qform and codes of a NIfTI source.

    Raises:
        InputError: values that the type of the file can't hold.
    """

    def set_data_array(self, data_array: NdarrayOrTensor, channel_dim: int | None = 0, **_: object) -> None:
        super().set_data_array(data_array, channel_dim=channel_dim, squeeze_end_dims=False)

    def set_metadata(self, meta_dict: dict | None = None, resample: bool = True, **options: object) -> None:
        super().set_metadata(meta_dict, resample=resample, **options)
        original = self.get_meta_info(meta_dict)[0]
        if original is not None and np.allclose(to_affine_nd(3, self.affine), to_affine_nd(3, original), atol=1e-3):
            self.affine, self.place = original, {key: meta_dict[key] for key in PLACE if key in meta_dict}
            if "original_pixdim" in meta_dict:  # from MONAI 1.6; undoing a transform writes rounding into the other
                self.place["pixdim"] = meta_dict["original_pixdim"]

    def write(self, filename: str | os.PathLike, verbose: bool = False, **kwargs: object) -> None:
        if self.data_obj.ndim == 4 and self.data_obj.shape[3] == 1:
            self.data_obj = self.data_obj[..., 0]
        check_range(self.data_obj, self.output_dtype)
        with replacing(filename) as temporary:
            if len(getattr(self, "place", ())) < len(PLACE):  # not from NIfTI, or not on the source's grid
                super().write(temporary, verbose=verbose, **kwargs)
            else:
                image = self.create_backend_obj(self.data_obj, self.affine, self.output_dtype)
                nib.save(nib.Nifti1Image(image.dataobj, None, place_header(image.header, self.place)), temporary)


def check_range(values: NdarrayOrTensor, kind: object) -> None:
    """Refuse values that a cast to whole numbers would turn into others."""
    kind = np.dtype(kind)  # type: ignore[call-overload]
    if kind.kind in "iu" and not np.iinfo(kind).min <= values.min() <= values.max() <= np.iinfo(kind).max:
        raise InputError(
            f"label values up to {values.max():g} don't fit into {kind}; give save_label_map another type."
        )


def place_header(header: nib.Nifti1Header, place: Mapping[str, object]) -> nib.Nifti1Header:
    """``header`` with the sform, qform and codes of another one, bit for bit."""
    header = header.copy()
    for key, value in place.items():
        value = np.asarray(value)
        header[key] = np.append(value[:4], header[key][4:]) if key == "pixdim" else value
    return header


class AtomicPictureWriter(ITKWriter):
    """MONAI's writer for PNG and other pictures, by way of a temporary name; pixels as they are, without geometry."""

    def set_metadata(self, meta_dict: dict | None = None, resample: bool = False, **_: object) -> None:
        if resample:
            raise ValueError("pictures have no geometry to resample to; give resample=False.")
        self.affine = None

    def write(self, filename: str | os.PathLike, verbose: bool = False, **kwargs: object) -> None:
        with replacing(filename) as temporary:
            super().write(temporary, verbose=verbose, **kwargs)


def case_name(meta: dict, saver: Transform) -> dict:
    """For ``SaveImage(output_name_formatter=…)``: the file's name, less a channel's name at its end.

    ``BraTS-GLI-00000-000-t2f.nii.gz`` gives outputs that start with ``BraTS-GLI-00000-000``.
    """
    name = Path(str(meta["filename_or_obj"])).name
    stem = re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd|dcm|png|jpe?g|tiff?|bmp)$", "", name, flags=re.IGNORECASE)
    endings = "|".join(SYNONYMS["FLAIR"] + SYNONYMS["T1ce"] + SYNONYMS["T1"] + SYNONYMS["T2"])
    subject = re.sub(rf"[-_]({endings})$", "", stem, flags=re.IGNORECASE)
    # MONAI takes one ending off whatever it is given, and so would write scan.1 and scan.2 to the same file.
    return {"subject": f"{subject}.nii", "idx": None}
