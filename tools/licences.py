"""The licences of what hybrid_nets needs, and of what that needs, as the installed packages state them.

python tools/licences.py          # a table of the direct ones, in Markdown, then how many others have which
python tools/licences.py --all    # the others by name, too
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import fire
from packaging.requirements import Requirement

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
LONG_NAMES = {
    "Apache Software License": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "BSD 3-Clause License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def direct() -> dict[str, tuple[Requirement, list[str]]]:
    """What setup.cfg names, and for what: "always", or extras."""
    setup = ConfigParser()
    setup.read(SETUP, encoding="utf-8")
    groups = {"always": setup["options"]["install_requires"], **setup["options.extras_require"]}
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for group, text in groups.items():
        for line in filter(None, map(str.strip, text.splitlines())):
            need = Requirement(line)
            found.setdefault(need.name.lower(), (need, []))[1].append(group)
    return found


def reasons() -> dict[str, str]:
    """What setup.cfg says above each package."""
    found, comment = {}, []
    for line in map(str.strip, SETUP.read_text("utf-8").splitlines()):
        name = re.match(r"[A-Za-z][\w-]*(?= [<>=])", line)
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif name and comment:
            found.setdefault(name[0].lower(), " ".join(comment))
        if not line.startswith("#"):
            comment = []
    return found


def needs_of(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in package.requires or []:
        need = Requirement(line)
        if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield need


def closure(needs: list[Requirement]) -> dict[str, Distribution]:
    """Every installed package that ``needs`` bring along, by name."""
    found: dict[str, Distribution] = {}
    queue = list(needs)
    while queue:
        need = queue.pop()
        name = need.name.lower().replace("_", "-")
        try:
            package = distribution(need.name)
        except PackageNotFoundError:
            continue
        if name not in found:
            found[name] = package
            queue += needs_of(package, need.extras)
    return found


def licence(package: Distribution) -> str:
    """In one or a few words, as the package's own metadata state it."""
    meta = package.metadata
    stated = [value.split(" :: ")[-1] for value in meta.get_all("Classifier", []) if value.startswith("License ::")]
    text = meta.get("License-Expression") or next(iter(stated), None) or meta.get("License") or "not stated"
    first = text.strip().splitlines()[0][:80]
    return LONG_NAMES.get(first, re.sub(r"\s+", " ", first))


def licences(all: bool = False) -> None:
    """Print the table; ALL adds the packages that the direct ones need."""
    named = direct()
    found = closure([need for need, _ in named.values()])
    why = reasons()
    print("| package | for | bound | installed | licence | why, from setup.cfg |\n|---|---|---|---|---|---|")
    for name, (need, groups) in sorted(named.items()):
        package = found.get(name.replace("_", "-"))
        version, text = (package.version, licence(package)) if package else ("-", "-")
        print(f"| {need.name} | {', '.join(groups)} | {need.specifier} | {version} | {text} | {why.get(name, '')} |")
    others = defaultdict(list)
    for name, package in found.items():
        if name not in named:
            others[licence(package)].append(name)
    print(f"\n{sum(map(len, others.values()))} more packages come with them:\n")
    for text, names in sorted(others.items(), key=lambda item: -len(item[1])):
        print(f"- {text}: {', '.join(sorted(names)) if all else len(names)}")


if __name__ == "__main__":
    fire.Fire(licences)
