"""Figures and sheets of a run for TensorBoard, through tensorboardX, which only those need who ask for it."""

import numpy as np
from PIL import Image

from errors import UserError


class Board:
    """A folder that TensorBoard reads; what an earlier session wrote after `epoch` is dropped."""

    def __init__(self, folder, epoch):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError("--tensorboard needs another package — pip install tensorboardX") from None
        self.writer = SummaryWriter(folder, purge_step=epoch + 1)

    def record(self, entry, folder):
        """Write what an epoch has brought: the entry of the log, and the sheets in the run's folder."""
        epoch = entry["epoch"]
        for part, figures in (("train", entry), ("held_out", entry.get("held_out", {})), ("test", entry["test"])):
            for name in ("loss", "reconstruction", "kl", "beta", "learning_rate", "images_per_second"):
                if name in figures:
                    self.writer.add_scalar(f"{name}/{part}", figures[name], epoch)
        for name in ("reconstructions", "samples"):
            with Image.open(folder / f"epoch_{epoch:04d}_{name}.png") as sheet:
                self.writer.add_image(name, np.asarray(sheet.convert("RGB")), epoch, dataformats="HWC")
        self.writer.flush()
