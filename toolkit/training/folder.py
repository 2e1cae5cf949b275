"""The files of a run: the model, and beside it a folder with its state, log and sheets. No arithmetic happens here.

    models/vae_mnist_filters_0064_dims_0008.npz       the model
    models/vae_mnist_filters_0064_dims_0008/          state.npz, log.jsonl, epoch_0001_samples.png …

The folder is locked before anything in it is read or written. Nothing that an earlier run made is replaced unasked.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from toolkit.datasets import file_name, inode_of, public_name
from toolkit.errors import UserError
from toolkit.files.reading import is_there
from toolkit.files.targets import ANY, check_target
from toolkit.files.writing import is_stream, locked, make_folder, uninterrupted, write
from toolkit.formats import checkpoint
from toolkit.formats.checkpoint import Checkpoint
from toolkit.machine import ranks
from toolkit.training import log
from toolkit.training.plan import Plan, differences
from toolkit.training.trainer import Trainer
from toolkit.wording import counted

SHEETS = ("reconstructions", "samples")


def run_folder(outdir: Path | str, plan: Plan) -> "RunFolder":
    """The folder of a run. It is rank 0's; other ranks have one that holds nothing."""
    return Elsewhere(outdir, plan) if ranks.rank else RunFolder(outdir, plan)


class RunFolder:
    """Where a run keeps its files; used as a context manager, which holds the lock."""

    is_here = True

    def __init__(self, outdir: Path | str, plan: Plan):
        name = checkpoint.model_name(file_name(plan.train.dataset), plan.model.max_filters, plan.model.latent_dims)
        self.plan, self.model_file, self.folder = plan, Path(outdir, f"{name}.npz"), Path(outdir, name)
        self.log: list[dict[str, Any]] = []
        self.skipped: dict[str, Any] = {}

    def __enter__(self) -> "RunFolder":
        self.held = ExitStack()
        if self.folder.is_dir():
            self.held.enter_context(locked(self.folder))
        self.is_locked = self.folder.is_dir()
        return self

    def __exit__(self, *_: Any) -> None:
        self.held.close()

    # What an earlier session left

    def state(self) -> checkpoint.State | None:
        """The state of an earlier session; None if there is none, and an error if it cannot be read now."""
        path = self.folder / "state.npz"
        if not is_there(path):
            return None
        state = checkpoint.load_state(path)
        self.plan.resumed((), state.facts["options"])  # stops where they are none
        return state

    def check_free(self) -> bool:
        """Stop where an earlier run would be lost; False where that run is the same one, and has ended."""
        ways = "replace it with --overwrite, or choose another --outdir"
        try:
            state = self.state()
        except UserError as error:
            why = str(error).partition(" — ")[0]
            raise UserError(f"{self.folder} holds a run whose state cannot be read ({why}) — {ways}") from None
        if state is None:
            for path in (self.model_file, *self.traces()):
                if is_there(path):
                    raise UserError(f"{path} exists — {ways}")
            return True
        options, done = state.facts["options"], state.facts["epoch"]
        if done == 0 and not is_there(self.model_file):
            return True
        if done < (asked := options.get("epochs", 0)):
            of = f"{done} of {counted(asked, 'epoch')}"
            raise UserError(f"{self.folder} holds an unfinished run, {of} — continue it with --resume, {ways}")
        if other := differences(self.plan, options):
            if other == ["--epochs"] and self.plan.train.epochs > done:
                ways = f"train it further with --resume, {ways}"
            raise UserError(f"{self.folder} holds a finished run with another {', '.join(other)} — {ways}")
        if not is_there(self.model_file):
            ways = f"--resume with a larger --epochs writes it again; {ways}"
            raise UserError(f"{self.folder} holds a finished run, but its model {self.model_file} is gone — {ways}")
        return False

    # What this session writes

    def begin(self, trainer: Trainer, device: str, resumed: bool, overwrite: bool = False) -> None:
        """Make the folder ready, with a state from which the run can be resumed; an earlier run's sheets go.

        `device` is what computes, in words: on another one a run ends with other bits.
        """
        self.device = device
        make_folder(self.folder)
        if not self.is_locked:
            self.held.enter_context(locked(self.folder))
            if not (resumed or overwrite or self.check_free()):  # another process was here meanwhile
                raise UserError(f"another process has trained {self.model_file} meanwhile — choose another --outdir")
        if not overwrite:
            for path in (self.model_file, self.folder / "state.npz", self.folder / "log.jsonl"):
                check_target(path, ANY)
        for path in (self.model_file, *self.folder.iterdir()):
            if is_stream(path):  # would be written to, and a pipe waits for a reader
                if path.is_symlink():
                    raise UserError(f"{path} leads to a pipe or a device — remove it")
                path.unlink()
        if resumed:
            self.log = log.read_until(self.folder / "log.jsonl", trainer.epoch)
        else:  # what the run that this one replaces has left
            for path in self.traces():
                path.unlink()
        self.skipped = {"train": trainer.train.skipped, "test": trainer.test.skipped}
        if not resumed:
            self.save_state(trainer)

    def traces(self) -> list[Path]:
        """What a run leaves besides its model and its state."""
        sheets = (path for kind in SHEETS for path in self.folder.glob(f"epoch_[0-9]*_{kind}.png"))
        return [*self.folder.glob("log.jsonl"), *sheets]

    def save(self, trainer: Trainer, entry: dict[str, Any], sheets: dict[str, Callable[[], bytes]]) -> None:
        """Write what an epoch has brought; the state comes last, so that whatever a crash leaves can be resumed.

        `sheets` are pictures as PNG by their names.
        """
        with uninterrupted():
            for name, png in sheets.items():
                write(self.folder / f"epoch_{trainer.epoch:04d}_{name}.png", png(), durable=True)
            self.log.append(entry)
            write(self.folder / "log.jsonl", log.packed(self.log, self.skipped), durable=True)
            if trainer.is_best:
                checkpoint.save(self.model_file, checkpoint_of(trainer, entry))
            self.save_state(trainer)

    def without_sampler(self) -> Checkpoint | None:
        """The model that was kept; None if it has a fitted prior, or is gone."""
        if not is_there(self.model_file):
            return None
        kept = checkpoint.load(self.model_file)
        return None if kept.sampler else kept

    def save_again(self, kept: Checkpoint) -> None:
        """Write that model again, which has a fitted prior now."""
        checkpoint.save(self.model_file, kept)

    def save_state(self, trainer: Trainer) -> None:
        facts = trainer.memory() | {"device": self.device}
        if (inode := inode_of(self.plan.train.dataset)) is not None:
            facts["folder"] = inode
        checkpoint.save_state(self.folder / "state.npz", trainer.model, trainer.optimizer, facts)


class Elsewhere(RunFolder):
    """The run's folder for ranks that have none: nothing is in it, and nothing is written."""

    is_here = False

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def state(self) -> None:
        return None

    def check_free(self) -> bool:
        return True

    def begin(self, *_: Any, **__: Any) -> None:
        pass

    save = save_again = begin

    def without_sampler(self) -> None:
        return None


def checkpoint_of(trainer: Trainer, entry: dict[str, Any]) -> Checkpoint:
    """The model with what its file says; it may go to other people, so it holds no path."""
    dataset = public_name(trainer.config.dataset)
    return Checkpoint(
        trainer.model,
        dataset,
        trainer.train.classes if trainer.model.config.num_classes else (),
        trainer.epoch,
        entry["collapsed"],
        trainer.plan.options() | {"dataset": dataset},
        entry["test"],
    )
