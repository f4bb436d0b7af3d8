"""Names of outputs: one per case, without leaving the folder of results."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from hybrid_nets.writers import case_name

__all__ = ["file_names", "safe_name"]

# Bytes that a name may have, so that endings and a temporary name's prefix still fit into a file system's 255.
LONGEST = 180


def file_names(files: Sequence[str], root: str | Path) -> list[str]:
    """A name for the case of each file: its path below ``root`` without the ending of its format.

    Where two would be the same, as for ``scan.nii`` and ``scan.nii.gz``, both keep their endings; files from elsewhere
    have no path below ``root`` and go by their names.

    Example::

        >>> file_names(["/data/a/scan.nii.gz", "/data/b/scan.nii.gz"], "/data")
        ['a/scan', 'b/scan']
        >>> file_names(["/data/scan.nii.gz", "/data/scan.nii"], "/data")
        ['scan.nii.gz', 'scan.nii']
    """
    below = [relative(file, root) for file in files]
    names = [safe_name(str(path.with_name(stem(path)))) for path in below]
    double = repeated(names)
    names = [safe_name(str(path)) if name.casefold() in double else name for name, path in zip(names, below)]
    double = repeated(names)  # files of one name from different places in a list
    return [f"{name}~{short_hash(file)}" if name.casefold() in double else name for name, file in zip(names, files)]


def relative(file: str, root: str | Path) -> PurePath:
    path = PurePath(os.path.relpath(os.path.abspath(file), os.path.abspath(root)))
    outside = ".." in path.parts or not path.name
    return PurePath(os.path.basename(os.path.abspath(file)) or "root") if outside else path


def stem(path: PurePath) -> str:
    """The name that the bundles' own inference gives to outputs, less its postfix."""
    return case_name({"filename_or_obj": path.name}, None)["subject"].removesuffix(".nii") or path.name  # type: ignore[arg-type]


def repeated(names: Sequence[str]) -> set[str]:
    """Names that come twice, also where a file system doesn't tell capitals from small letters."""
    return {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}


def safe_name(name: str) -> str:
    """``name`` as a relative path that stays below its folder, with parts that every file system takes.

    Example::

        >>> safe_name("../../etc/passwd"), safe_name("/a/./b"), safe_name("A" * 300) == "A" * 300
        ('etc/passwd', 'a/b', False)
    """
    parts = [re.sub(r"[\x00-\x1f\x7f]", "_", part) for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(shorten(part) for part in parts) or "case"


def shorten(part: str) -> str:
    coded = part.encode("utf-8", "surrogateescape")
    if len(coded) <= LONGEST:
        return part
    return f"{coded[: LONGEST - 10].decode('utf-8', 'ignore')}~{short_hash(part)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
