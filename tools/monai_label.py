"""Serve the bundles with MONAI Label 0.8.5, for segmentation and training from 3D Slicer and other viewers.

    python tools/monai_label.py install ~/monai_label
    . ~/monai_label/bin/activate
    python tools/monai_label.py app my_app --bundles mobileutr
    python tools/monai_label.py start my_app --studies my_scans

Only ``install`` downloads anything, and that from pip's index. See docs/monai_label.md.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import fire

from hybrid_nets import InputError
from hybrid_nets.atomic import replacing

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/metadata.json"))

# Installed without what they ask for: MONAI Label also wants SAM 2 and packages for pathology and experiment tracking,
# which no bundle here needs, and pydicom-seg a jsonschema older than MONAI's, but it works with that.
ALONE = ("monailabel==0.8.5", "pydicom-seg==0.4.1")
# What these two import. pydicom-seg is older than numpy 2 and pydicom 3; the other two bounds follow from pydicom's.
NEEDS = (
    *("numpy<2", "pydicom<3", "pynetdicom<3", "dicomweb-client[gcp]<0.60", "SimpleITK", "pynrrd", "scikit-image"),
    *("fastapi", "uvicorn", "httpx", "python-multipart", "pydantic", "pydantic-settings", "python-dotenv", "pyyaml"),
    *("passlib", "pyjwt", "bcrypt", "google-auth", "requests", "requests-toolbelt", "urllib3", "girder-client"),
    *("schedule", "timeloop", "expiringdict", "expiring_dict", "cachetools", "watchdog", "filelock", "psutil"),
    *("pillow", "shapely", "scikit-learn", "numpymaxflow", "einops", "ninja"),
    "setuptools",  # has the distutils that the server imports and Python 3.12 lacks
)
COMPLETE = "hybrid_nets_complete.txt"  # written last into the environment: what it was made of
NO_MONAI_LABEL = (
    "this Python has no MONAI Label; make an environment with python tools/monai_label.py install FOLDER, and activate "
    "it: . FOLDER/bin/activate"
)

STAND_IN = '''"""Stands in for torchvision, no build of which runs with this torch; made by tools/monai_label.py.

MONAI Label imports two of its functions, which draw slices into PNG files for debugging and which no bundle here calls.
Remove this folder before installing the real torchvision.
"""
'''
STAND_IN_UTILS = '''"""The names that MONAI Label imports."""


def make_grid(*arguments, **options):
    raise NotImplementedError("torchvision is a stand-in here, see torchvision/__init__.py; install the real one.")


save_image = make_grid
'''


def install(folder: str, torch_index: str | None = None) -> None:
    """Make FOLDER a virtual environment with MONAI Label and this package, or complete one that was interrupted.

    Args:
        folder: the environment. It uses the code in this repository, so keep that where it is.
        torch_index: where pip finds torch and torchvision, as pytorch.org names it; default: pip's own index.
    """
    environment = Path(folder).expanduser().resolve()
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise InputError("MONAI Label's packages need Python 3.10, 3.11 or 3.12; run this command with one of these.")
    if environment.exists() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").is_file():
        raise InputError(f"{environment} holds other files; give a folder that is new, empty, or made by this command.")
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    own_needs = setup["options"]["install_requires"]
    made_of = "\n".join([sys.version, str(ROOT), *ALONE, *NEEDS, own_needs])
    complete = environment / COMPLETE
    if complete.is_file() and complete.read_text() == made_of:
        print(f"{environment} is complete.")
        return
    complete.unlink(missing_ok=True)
    call([sys.executable, "-m", "venv", environment])
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install"]
    pip_torch = [*pip, "--index-url", torch_index] if torch_index else pip
    call([*pip_torch, next(line for line in own_needs.splitlines() if line.startswith("torch "))])
    call([*pip, "--editable", ROOT, *NEEDS])
    call([*pip, "--no-deps", *ALONE])
    add_torchvision(python, pip_torch)
    call([python, "-c", "import hybrid_nets, monailabel.app, monailabel.tasks.infer.bundle"])
    with replacing(complete) as temporary:
        temporary.write_text(made_of)
    print(f"\n{environment} is complete. For the other commands activate it: . {python.parent / 'activate'}")


def add_torchvision(python: Path, pip: list) -> None:
    """Install the torchvision that belongs to the installed torch; if that does not run, a stand-in.

    PyPI's torchvision for Linux is built for CUDA and fails beside a torch that is not.
    """

    def works() -> bool:
        return subprocess.run([python, "-c", "import torchvision.utils"], capture_output=True).returncode == 0

    if works():
        return
    torch = read(python, "from importlib.metadata import version; print(version('torch').partition('+')[0])")
    call([*pip, "torchvision", f"torch=={torch}"])
    if works():
        return
    call([python, "-m", "pip", "uninstall", "--yes", "torchvision"])
    target = Path(read(python, "import sysconfig; print(sysconfig.get_path('purelib'))")) / "torchvision"
    shutil.rmtree(target, ignore_errors=True)
    with publishing(target) as temporary:
        (temporary / "__init__.py").write_text(STAND_IN)
        (temporary / "utils.py").write_text(STAND_IN_UTILS)
    print(
        f"That torchvision does not run with this torch. {target} stands in for it: the server needs two names of it."
    )


def app(folder: str, bundles: str | tuple[str, ...] = tuple(BUNDLES)) -> None:
    """Make FOLDER an app for the server: MONAI Label's own ``monaibundle``, with copies of bundles in ``model``.

    Args:
        folder: a new folder. What the server trains stays in there too.
        bundles: their names, with commas between them; default: all.
    """
    target = Path(folder).expanduser().resolve()
    names = [name.strip() for name in (bundles.split(",") if isinstance(bundles, str) else bundles)]
    unknown = [name for name in names if name not in BUNDLES]
    if unknown:
        raise InputError(f"no bundle is named {', '.join(unknown)}; known are {', '.join(BUNDLES)}.")
    if target.exists():
        raise InputError(f"{target} exists, and may hold trained weights; give another folder, or remove this one.")
    sample = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
    if not sample.is_dir():
        raise InputError(NO_MONAI_LABEL)
    with publishing(target) as temporary:
        shutil.copytree(sample, temporary, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        for name in names:
            source, copy = ROOT / "bundles" / name, temporary / "model" / name
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
            (copy / "models").mkdir()
            if (source / "models" / "model.pt").is_file():
                shutil.copy2(source / "models" / "model.pt", copy / "models")
    print(f"wrote {target}")
    tell_missing_weights(target, names)


def start(app: str, studies: str, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the app in folder APP on the images in folder STUDIES, by a command that is printed, until Ctrl-C.

    Args:
        app: made by the command ``app``.
        studies: one NIfTI file per image. The server writes labels and a list of its own there.
        host: address to listen at; 0.0.0.0 lets other computers in, without a password.
        port: to listen at.
    """
    folder, images = Path(app).expanduser().resolve(), Path(studies).expanduser().resolve()
    names = sorted(path.parents[1].name for path in folder.glob("model/*/configs/inference.json"))
    if not (folder / "main.py").is_file() or not names:
        raise InputError(f"{folder} is no app with bundles; make one with python tools/monai_label.py app FOLDER.")
    if not images.is_dir():
        raise InputError(f"{images} is not a folder; give the one that holds the images, or an empty one.")
    if importlib.util.find_spec("monailabel") is None:
        raise InputError(NO_MONAI_LABEL)
    tell_missing_weights(folder, names)
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", folder, "--studies", images]
    # By default the server asks the internet for the model zoo's list, and for SAM 2 where that is installed.
    command += ["--conf", "models", ",".join(names), "--conf", "zoo_source", "local", "--conf", "sam2", "false"]
    command = show([*command, "--host", host, "--port", port])
    if os.name == "posix":
        os.execv(command[0], command)  # so that a signal to this process reaches the server
    sys.exit(subprocess.run(command).returncode)


def tell_missing_weights(folder: Path, names: list[str]) -> None:
    """Say which bundles the server can only train: it offers for inference what has weights when it starts."""
    for name in names:
        file = folder / "model" / name / "models" / "model.pt"
        if not file.is_file():
            print(f"{name} has no weights: train it on the server, or put them at {file}; then start the server anew.")


@contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes ``folder`` when the block ends well, and is removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as room:
        building = Path(room) / folder.name
        building.mkdir()
        yield building
        os.replace(building, folder)


def call(command: list) -> None:
    """Run ``command``; if it fails, which it has explained itself, end with its exit status."""
    status = subprocess.run(show(command)).returncode
    if status:
        sys.exit(status)


def show(command: list) -> list[str]:
    """Print ``command`` as one would type it; returns it as text."""
    parts = [str(part) for part in command]
    print(f"$ {shlex.join(parts)}", flush=True)
    return parts


def read(python: Path, code: str) -> str:
    """What ``code`` prints in the environment of ``python``."""
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    try:
        fire.Fire({"install": install, "app": app, "start": start})
    except InputError as error:
        sys.exit(f"error: {error}")
