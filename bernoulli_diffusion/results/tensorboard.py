"""train.py --tensorboard: the same curves, samples and parameters for those who look there.

Written into RESULTS_DIR/tensorboard. The package is an optional extra.
"""

from pathlib import Path

import numpy as np
from torch import nn

from ..system.errors import UserError
from .record import Results


def check_installed() -> None:
    """Raises UserError if torch cannot write for TensorBoard here."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard: the package tensorboard is not installed; python -m pip install"
            " tensorboard, or leave the option out (metrics.jsonl has the same numbers)"
        ) from None


class Board:
    """Writes a run's validations as TensorBoard's events, by training step."""

    def __init__(self, results_dir: Path, step: int):
        """step: where the run stands; what an earlier part of it wrote beyond is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(results_dir / "tensorboard"), purge_step=step + 1)

    def add(self, results: Results, model: nn.Module, frame: np.ndarray, step: int) -> None:
        """The last validation in results, a picture of its samples, uint8, and the parameters."""
        writer, bound = self.writer, results.bound
        for name, values in (("train", bound.train), ("val", bound.val)):
            if values:
                writer.add_scalar(f"bound/{name}", values[-1], step)
        if results.losses:
            writer.add_scalar("loss", results.losses[-1], step)
        for measure in results.measures:
            writer.add_scalar(measure.tag, measure.values[-1], step)
        writer.add_image("samples", frame, step, dataformats="HWC"[: frame.ndim])
        for name, parameter in model.named_parameters():
            writer.add_histogram(f"parameters/{name}", parameter.detach(), step)
        writer.flush()

    def close(self) -> None:
        self.writer.close()
