"""Metrics and sheets of a run for TensorBoard, written by the optional package tensorboardX."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.errors import UserError


class Board:
    """A folder that TensorBoard reads. After a resume it hides what was written for later epochs before."""

    def __init__(self, folder: str):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError("--tensorboard needs tensorboardX — pip install tensorboardX") from None
        self.open = lambda epoch: SummaryWriter(folder, purge_step=epoch)
        self.writer = None

    def record(self, entry: dict[str, Any], folder: Path) -> None:
        """Write an epoch: its log entry, and the sheets in the run's folder."""
        epoch = entry["epoch"]
        self.writer = self.writer or self.open(epoch)
        for part, metrics in (("train", entry), ("held_out", entry.get("held_out", {})), ("test", entry["test"])):
            for name in ("loss", "reconstruction", "kl", "beta", "learning_rate", "images_per_second"):
                if name in metrics:
                    self.writer.add_scalar(f"{name}/{part}", metrics[name], epoch)
        for name in ("reconstructions", "samples"):
            with Image.open(folder / f"epoch_{epoch:04d}_{name}.png") as sheet:
                self.writer.add_image(name, np.asarray(sheet.convert("RGB")), epoch, dataformats="HWC")
        self.writer.flush()
