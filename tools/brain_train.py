"""Train the brain bundle on a CPU with bfloat16 arithmetic, which took two thirds of the time on an AMD EPYC.

On an Intel Xeon without AMX it took half as long again as float32: use ``monai.bundle run`` there.

    python tools/brain_train.py --roi_size "[64,64,64]" --batch_size 1 --num_workers 1 --ckpt_dir .cache/brain_train \\
        --resume true

Options are the keys of ``bundles/mobileutr_brain/configs/train.json``; the result is the same as that of
``python -m monai.bundle run`` but for rounding. Checkpoints hold float32, and either way of training goes on from them.
"""

from __future__ import annotations

from pathlib import Path

import fire
import torch
from monai.bundle import ConfigWorkflow

CONFIG = Path(__file__).resolve().parents[1] / "bundles" / "mobileutr_brain" / "configs" / "train.json"


def brain_train(threads: int = 1, **options: object) -> None:
    """Train with THREADS threads."""
    torch.set_num_threads(threads)
    workflow = ConfigWorkflow(
        str(CONFIG), workflow_type="train", logging_file=str(CONFIG.parent / "logging.conf"), **options
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network")
    forward = torch.autocast("cpu", torch.bfloat16)(network.forward)
    network.forward = lambda x: forward(x).float()
    workflow.run()
    workflow.finalize()


if __name__ == "__main__":
    fire.Fire(brain_train)
