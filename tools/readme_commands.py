"""Print the shell commands of a README that stand in code blocks of one name, for CI to run.

    python tools/readme_commands.py README.md run

A block is named by a comment on the line before it: <!-- ci: run -->.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def readme_commands(file: str, name: str) -> str:
    """The content of FILE's code blocks named NAME, joined."""
    blocks = re.findall(rf"<!-- ci: {re.escape(name)} -->\n```\w*\n(.*?)```", Path(file).read_text(), flags=re.DOTALL)
    if not blocks:
        raise SystemExit(f"error: {file} has no code block named {name!r}.")
    return "".join(blocks).rstrip()


if __name__ == "__main__":
    print(readme_commands(*sys.argv[1:]))
