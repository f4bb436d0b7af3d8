"""What a bundle could run when its configs are read, found without running any of it.

    python tools/bundle_code.py list FOLDER   # all of it
    python tools/bundle_code.py unknown FOLDER # what the bundles of this repository don't have
    python tools/bundle_code.py write          # take down what they have, in tools/known_bundle_code.json

That is each value that starts with "$" (Python, evaluated) or "%" (a piece of another file), each "_target_" (called),
what Python's logging evaluates in a logging.conf, and files of code.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import fire
import yaml

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "tools" / "known_bundle_code.json"
CODE_FILES = (".py", ".pyc", ".pyd", ".so", ".dll", ".ipynb", ".sh")


def find_code(folder: Path) -> Iterator[tuple[str, str]]:
    """The place and the text of each piece of code in a bundle's ``folder``."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if file.suffix in CODE_FILES:
            yield name, f"a file of code: {name}"
        elif file.suffix in (".conf", ".ini", ".cfg"):
            yield from ((name, line) for line in find_logging_code(file.read_text("utf-8", errors="replace")))
        elif file.suffix in (".json", ".yaml", ".yml"):
            try:
                content = (json.loads if file.suffix == ".json" else yaml.safe_load)(file.read_text("utf-8"))
            except (ValueError, yaml.YAMLError) as error:
                yield name, f"a file that can't be read: {name} ({str(error).splitlines()[0]})"
                continue
            yield from ((f"{name}: {key}", text) for key, text in find_config_code(content, ""))


def find_config_code(content: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if re.split("#|::", str(name))[-1] == "_target_":  # overlays write train#dataset#_target_
                yield key, f"_target_ {value}"
            yield from find_config_code(value, f"{key}#{name}".lstrip("#"))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from find_config_code(value, f"{key}#{number}".lstrip("#"))
    elif isinstance(content, str) and content.lstrip().startswith(("$", "%")):
        yield key, content


def find_logging_code(text: str) -> Iterator[str]:
    """The lines of a logging.conf that Python's ``logging.config.fileConfig`` imports or evaluates."""
    section = ""
    for line in text.splitlines():
        section = line.strip() if line.strip().startswith("[") else section
        if re.match(r"\s*(class|args|kwargs|defaults)\s*[=:]", line) or (line[:1].isspace() and line.strip()):
            yield f"{section} {' '.join(line.split())}"


def unknown_code(folder: Path) -> list[str]:
    """A line for each piece of code in ``folder`` that no bundle of this repository has."""
    known = set(json.loads(KNOWN.read_text("utf-8")))
    return [f"{place}: {text}" for place, text in find_code(folder) if text not in known]


def own_code() -> list[str]:
    """What the bundles of this repository have, sorted; their trainings and checkpoints left out."""
    return sorted({text for configs in ROOT.glob("bundles/*/configs") for _, text in find_code(configs)})


def write() -> None:
    KNOWN.write_text(json.dumps(own_code(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"wrote {KNOWN}")


def show(folder: str) -> None:
    print(*(f"{place}: {text}" for place, text in find_code(Path(folder))), sep="\n")


def show_unknown(folder: str) -> None:
    found = unknown_code(Path(folder))
    print(*found, f"{len(found)} unknown piece(s) of code in {folder}", sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    fire.Fire({"list": show, "unknown": show_unknown, "write": write})
