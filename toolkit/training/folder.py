"""The files of a run: the model, and a folder with its state, log and sheets. No arithmetic happens here.

    models/vae_mnist_filters_0064_dims_0008.npz       the model
    models/vae_mnist_filters_0064_dims_0008/          state.npz, log.jsonl, epoch_0001_samples.png …

The folder is locked before anything in it is read or written. Only --overwrite replaces an earlier run.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from glob import escape
from pathlib import Path
from typing import Any

from toolkit.datasets import file_name, inode_of
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
from toolkit.wording import counted, public_name

SHEETS = ("reconstructions", "samples")


class RunFolder:
    """The model file and the folder of a run; only rank 0 reads and writes them.

    As a context manager it holds the lock. It has the `state` to resume from, and whether the run `is_finished`
    already. It raises an error where an earlier run would be lost.
    """

    def __init__(
        self,
        outdir: Path | str,
        plan: Plan,
        resume: bool = False,
        overwrite: bool = False,
        minutes: float | None = None,
    ):
        name = checkpoint.model_name(file_name(plan.train.dataset), plan.model.max_filters, plan.model.latent_dims)
        self.plan, self.model_file, self.folder = plan, Path(outdir, f"{name}.npz"), Path(outdir, name)
        self.resume, self.overwrite, self.minutes = resume, overwrite, minutes
        self.log: list[dict[str, Any]] = []
        self.skipped: dict[str, Any] = {}

    def __enter__(self) -> "RunFolder":
        self.held, self.state = ExitStack(), None
        self.is_finished = ranks.broadcast(self.look())
        return self

    def __exit__(self, *_: Any) -> None:
        self.held.close()

    # The state of an earlier session

    @ranks.rank_zero_only
    def look(self) -> bool:
        """Lock the folder and read the state to resume; returns whether this run is already complete."""
        with ExitStack() as held:
            self.is_locked = self.folder.is_dir()
            if self.is_locked:
                held.enter_context(locked(self.folder))
            if self.resume:
                self.state = self.read_state()
            is_finished = not (self.resume or self.overwrite or self.check_free())
            self.held = held.pop_all()
        return is_finished

    def read_state(self) -> checkpoint.State | None:
        """The state of an earlier session, or None; raises UserError if it cannot be read."""
        path = self.folder / "state.npz"
        if not is_there(path):
            return None
        state = checkpoint.load_state(path)
        self.plan.resumed((), state.facts["options"])  # raises an error if they are invalid
        return state

    def check_free(self) -> bool:
        """Raise an error if an earlier run would be lost; False if the same run has finished."""
        ways = "replace it with --overwrite, or choose another --outdir"
        try:
            state = self.read_state()
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
            if other == ["--epochs"] and self.plan.train.epochs > asked:
                ways = f"train it further with --resume, {ways}"
            raise UserError(f"{self.folder} holds a finished run with another {', '.join(other)} — {ways}")
        if not is_there(self.model_file):
            ways = f"--resume with a larger --epochs recreates it; {ways}"
            raise UserError(f"{self.folder} holds a finished run, but its model {self.model_file} is gone — {ways}")
        return False

    # Files of this session

    @ranks.rank_zero_only
    def begin(self, trainer: Trainer, device: str) -> None:
        """Create the folder and a state to resume from; delete the sheets of an earlier run.

        `device` is its name; a run that changes device is not bit-identical.
        """
        self.device = device
        make_folder(self.folder)
        if not self.is_locked:
            self.held.enter_context(locked(self.folder))
            if not (self.state or self.overwrite or self.check_free()):  # by another process in the meantime
                raise UserError(f"another process has since trained {self.model_file} — choose another --outdir")
        if not self.overwrite:
            for path in (self.model_file, self.folder / "state.npz", self.folder / "log.jsonl"):
                check_target(path, ANY)
        for path in (self.model_file, *self.folder.iterdir()):
            if is_stream(path):  # writing to a pipe would block
                if path.is_symlink():
                    raise UserError(f"{path} is a pipe or a device — remove it")
                path.unlink()
        if self.state:
            self.log = log.read_until(self.folder / "log.jsonl", trainer.steps // trainer.epoch_steps)
        else:  # of the run to replace
            for path in self.traces():
                path.unlink()
        self.skipped = {"train": trainer.train.skipped, "test": trainer.test.skipped}
        if not self.state:
            self.save_state(trainer)

    def traces(self) -> list[Path]:
        """The log and the sheets of a run."""
        sheets = (path for kind in SHEETS for path in self.folder.glob(f"epoch_[0-9]*_{kind}.png"))
        return [*self.folder.glob("log.jsonl"), *sheets]

    @ranks.rank_zero_only
    def save(self, trainer: Trainer, entry: dict[str, Any], sheets: dict[str, Callable]) -> None:
        """Write sheets, log, model and state of an epoch; the state comes last, so a run can be resumed after a crash.

        `sheets` are functions that draw PNGs, by their names.
        """
        drawn = {name: png() for name, png in sheets.items()}  # before any file changes, as a GPU can fail here
        with uninterrupted():
            for name, png in drawn.items():
                write(self.folder / f"epoch_{trainer.epoch:04d}_{name}.png", png, durable=True)
            self.log.append(entry)
            write(self.folder / "log.jsonl", log.packed(self.log, self.skipped), durable=True)
            if trainer.is_best:
                checkpoint.save(self.model_file, checkpoint_of(trainer, entry))
            self.save_state(trainer)

    def without_sampler(self, trainer: Trainer) -> Checkpoint | None:
        """The kept model, on all ranks; None if it already has a fitted prior, or the file is missing."""
        kept = checkpoint.load(self.model_file) if not ranks.rank and is_there(self.model_file) else None
        if not ranks.broadcast(kept is not None and kept.sampler is None):
            return None
        kept = kept or Checkpoint(trainer.model.eval())
        kept.model.update(ranks.broadcast_arrays(kept.model.parameters()))
        return kept

    @ranks.rank_zero_only
    def save_again(self, kept: Checkpoint) -> None:
        """Write that model again, with its fitted prior."""
        checkpoint.save(self.model_file, kept)

    def save_state(self, trainer: Trainer) -> None:
        facts = trainer.memory() | {"device": self.device} | ({"minutes": self.minutes} if self.minutes else {})
        if (inode := inode_of(self.plan.train.dataset)) is not None:
            facts["folder"] = inode
        checkpoint.save_state(self.folder / "state.npz", trainer.model, trainer.optimizer, facts)


@ranks.rank_zero_only
def find_earlier(outdir: Path | str, dataset: str, minutes: float) -> dict[str, Any] | None:
    """The options of the newest run on a data set with these --minutes; None if there is none."""
    states = list(Path(outdir).glob(f"vae_{escape(file_name(dataset))}_filters_*/state.npz"))
    for state in sorted(states, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(UserError):
            facts = checkpoint.read(state).facts  # without the arrays
            options = facts.get("options", {})
            if facts.get("epoch") and facts.get("minutes") == minutes and options.get("dataset") == dataset:
                return options
    return None


def checkpoint_of(trainer: Trainer, entry: dict[str, Any]) -> Checkpoint:
    """The model with its metadata, which contains no path because the file may be shared."""
    dataset = public_name(trainer.config.dataset)
    names = trainer.train.class_names if trainer.model.config.num_classes else ()
    options = trainer.plan.options() | {"dataset": dataset}
    return Checkpoint(trainer.model, dataset, names, trainer.epoch, entry["collapsed"], options, entry["test"])
