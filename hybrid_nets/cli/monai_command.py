"""Training and evaluation are commands of ``monai.bundle``, which anybody may run without this package's script."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from hybrid_nets.cli.options import check_options, config_paths, find_bundle
from hybrid_nets.errors import InputError

__all__ = ["monai_command", "run_monai"]

# Options of monai.bundle run itself.
OWN = ("meta_file", "logging_file", "tracking", "args_file", "run_id", "init_id", "final_id")
# Keys that MONAI adds to a config for ``--tracking mlflow``.
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config")


def monai_command(configs: Sequence[str], bundle: str, overlays: object, options: Mapping[str, str]) -> list[str]:
    """The command line that runs ``configs`` of ``bundle``, ``overlays`` over them, with ``options`` as typed.

    Raises:
        InputError: no such bundle or config, an option that none of them has, or MLflow is wanted and not installed.
    """
    files = config_paths(find_bundle(bundle), configs, overlays)
    own = (*OWN, *TRACKING) if "tracking" in options else OWN
    check_options({name: value for name, value in options.items() if name not in own}, files, own)
    if options.get("tracking") == "mlflow" and find_spec("mlflow") is None:
        raise InputError("--tracking mlflow needs MLflow: pip install mlflow.")
    listed = str(files[0]) if len(files) == 1 else str([str(file) for file in files])
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", listed, *given]


def run_monai(configs: Sequence[str], bundle: str, overlays: object, options: Mapping[str, str]) -> None:
    """Print that command, run it, and end with its exit status."""
    command = monai_command(configs, bundle, overlays, options)
    print(shlex.join(["python", *command[1:]]), flush=True)
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
