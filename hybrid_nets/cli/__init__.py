"""The console script ``hybrid-nets``: segment what lies on disk, train, evaluate, and see what there is."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command that ``arguments`` name, by default those of this process."""
    import fire  # nothing that takes long: --help and info come at once

    from hybrid_nets.cli import commands
    from hybrid_nets.cli.words import prepare
    from hybrid_nets.errors import InputError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may be anything
    given = sys.argv[1:] if arguments is None else arguments
    known = {name: getattr(commands, name) for name in commands.__all__}
    try:
        fire.Fire(known, command=prepare(given), name="hybrid-nets")
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was.", file=sys.stderr)
        sys.exit(130)
