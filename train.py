"""python train.py --latent_dims 8
python train.py pictures --latent_dims 32

Train a variational autoencoder; every epoch is scored on the test split.
"""

import math
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit import datasets
from toolkit.architectures import ModelConfig
from toolkit.datasets.tree import has_pictures, is_tree
from toolkit.errors import UserError, warn
from toolkit.files.progress import bar
from toolkit.formats import checkpoint
from toolkit.formats.description import in_words, model_rows
from toolkit.machine import device, ranks
from toolkit.model.fitting import fit_prior
from toolkit.options import directory, minutes, option, options_of, path, run_name
from toolkit.pictures import images
from toolkit.pictures.explorer.network import check_fit
from toolkit.pictures.layout import PAIRS, framed
from toolkit.shell.command import command
from toolkit.shell.data import load_split
from toolkit.shell.earlier import EarlierTraining
from toolkit.shell.flags import DeviceOptions, PlaceOptions
from toolkit.shell.opening import COLLAPSED, LAST, ROOT, find_model
from toolkit.shell.parser import Typed
from toolkit.shell.presets import PresetOptions, parse_with_presets
from toolkit.training import budget, schedules
from toolkit.training.folder import RunFolder, find_earlier
from toolkit.training.plan import AUGMENTATIONS, Plan, TrainConfig, flags, make_plan
from toolkit.training.plan import command as command_of
from toolkit.training.tensorboard import Board
from toolkit.training.trainer import Trainer
from toolkit.wording import counted, duration

OPTIMIZERS = {"muon": "Muon and AdamW", "adamw": "AdamW"}
WIDTH = 79  # of the table of epochs
WIDTHS = {"=": 2, "+": 2, "KL": 8, "β": 7, "images/s": 9, "time": 8}  # of its columns; losses share the rest


@dataclass(frozen=True)
class RunOptions:
    """Where the files go and what the run starts from; not saved in its state."""

    run_name: str | None = option(
        None,
        "folder or zip file of pictures, or a name for this run",
        "output",
        kind=run_name,
        positional=True,
        common=True,
    )
    outdir: str = option("models", "output folder", "output", kind=directory, aliases=("save_dir", "runs_dir"))
    minutes: float | None = option(
        None,
        "choose model and epochs to end in N minutes",
        "optimisation",
        kind=minutes,
        not_with=("epochs",),
        common=True,
    )
    resume: bool = option(
        False, "continue this run; --epochs and --lr may change", "output", common=True, aliases=("resume_if_exists",)
    )
    reset_optimizer: bool = option(False, "reset the optimizer's state", "output", only_with=("resume",))
    overwrite: bool = option(False, "replace an earlier run in the same folder", "output")
    tensorboard: str | None = option(None, "also write TensorBoard logs", "output", kind=directory)
    init: str | None = option(
        None, "model with the initial weights", "model", kind=path, unit="MODEL", aliases=("initial_checkpoint_path",)
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ModelConfig, TrainConfig, PlaceOptions, RunOptions, PresetOptions, EarlierTraining, DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = with_pictures(parse_with_presets(__doc__, argv, *options()))
    device_name = device.start(typed.of(DeviceOptions).cpu, together=True)
    plan, run, place = plan_of(typed), typed.of(RunOptions), typed.of(PlaceOptions)
    check_run(run)
    outdir, splits, clock = Path(run.outdir, run.run_name or ""), None, None
    if run.minutes:
        plan, splits, clock = for_minutes(run.minutes, plan, typed, outdir, run, place)
    board = Board(run.tensorboard) if run.tensorboard else None
    with RunFolder(outdir, plan, run.resume, run.overwrite, run.minutes) as folder:
        if folder.is_finished:
            epochs = counted(round(plan.train.epochs, 2), "epoch")
            print(f"Already trained: {folder.model_file}, with these options for {epochs}.")
            print("Pass --resume and a larger --epochs to train further, or --overwrite to start again.")
            return
        state = folder.state
        trainer = make_trainer(typed.values, plan, run, place, state, splits)
        folder.begin(trainer, device_name)
        print_options(trainer, folder, device_name)
        if run.resume:
            fresh = f"There is no run to resume in {folder.folder}: starting a new one"
            print(f"Resuming after epoch {trainer.epochs_done:g}" if state else fresh)
            if state and (before := state.facts.get("device", device_name)) != device_name:
                print(f"The run began on another device ({before}): the result will not be bit-identical.")
        if finished := trainer.steps >= trainer.horizon:
            done = "1 epoch is" if trainer.epoch == 1 else f"All {trainer.epochs_done:g} epochs are"
            print(f"{done} done. Pass a larger --epochs to train further.")
        try:
            train(trainer, folder, board, None if state else clock)
            add_prior(trainer, folder)
        except KeyboardInterrupt:
            at = f"interrupted in epoch {trainer.epoch + 1} of {math.ceil(trainer.config.epochs)}"
            again = f"--resume continues after epoch {trainer.epoch}" if trainer.epoch else "run it again to restart"
            if trainer.epoch >= trainer.config.epochs:
                at, again = "interrupted while fitting the prior", "add --resume to fit it"
            raise KeyboardInterrupt(f"{at} — {again}") from None
        if not finished:
            print_end(trainer, folder)
            if run.minutes:
                print(f"The same without --minutes:\n  {line_without_minutes(argv, trainer.plan, typed)}")


def train(trainer, folder, board, clock=None) -> None:
    """The remaining epochs: steps, scores, files, a row of the table. A clock changes their number."""
    config = trainer.model.config
    model = in_words(trainer.config.dataset, config.latent_dims, bool(config.num_classes), trainer.plan.options())

    def record(what):
        return {"Title": f"{what} after epoch {trainer.epoch}: {model}", "Command": command_of(trainer.plan)}

    def reconstructions():
        sheet, made = images.sheet(images.pairs(*trainer.reconstructions()), columns=8), record("Reconstructions")
        return images.png(framed(sheet, made["Title"], PAIRS), made)

    def samples():
        return images.png(images.sheet(images.to_bytes(trainer.samples())), record("Samples"))

    sheets = {"reconstructions": reconstructions, "samples": samples}
    size = trainer.batch_size
    start, entry = time.perf_counter(), None
    # One bar for the whole run, so that it shows the time left for all of it.
    with bar(trainer.horizon * size, "Training", done=trainer.steps * size) as shown:
        while trainer.steps < trainer.horizon:
            if clock:
                clock.begin_epoch(trainer)
            shown.title = f"Epoch {trainer.steps // trainer.epoch_steps + 1}/{math.ceil(trainer.config.epochs)}"
            for batch in trainer.batches():
                shown.note = f"loss {trainer.step(batch):.2f}"
                shown.update(batch.count)
            before, entry = entry, trainer.end_epoch()
            if clock:
                clock.end_epoch(trainer, entry)
                shown.total = trainer.horizon * size
            folder.save(trainer, entry, sheets)
            if board:
                board.record(entry, folder.folder)
            now = time.perf_counter()
            print_epoch(entry, before, trainer, now - start)
            start = now


def add_prior(trainer, folder) -> None:
    """Fit a mixture to the latent vectors of the training images; samples are drawn from it by default."""
    kept = folder.without_sampler(trainer)
    if kept is None:
        return
    if trainer.config.keep_best:
        why = "with the lowest loss on held-out images" if math.isfinite(trainer.best) else "as β was still rising"
        print(f"Kept: epoch {kept.epoch} of {trainer.epoch}, {why}")
    try:
        kept.sampler = fit_prior("mixture", kept.model, trainer.train, trainer.config.seed)
        folder.save_again(kept)
        print(f"Prior for samples: {kept.sampler.words}")
    except UserError as error:
        print(f"No prior was fitted: {str(error).partition(' — ')[0]}")


def print_end(trainer, folder):
    """Where the results are, and the next commands to type."""
    print(f"Model: {folder.model_file}")
    print(f"Sheets, log and state: {folder.folder}/")
    kind = "explorer"
    try:
        check_fit(trainer.model.eval())
    except UserError:  # no browser can run this model
        kind = "traversal"
    print("Next:")
    for script, more in (("generate.py", ""), ("visualize.py", f" {kind}")):
        model = shlex.quote(str(folder.model_file))
        print(f"  python {shlex.quote(os.path.relpath(ROOT / script))}{more} --model {model}")


def for_minutes(minutes, plan, typed, outdir, run, place):
    """The plan for a run of some minutes, the data and a clock; or the plan of an earlier run with these minutes."""
    options = None if run.overwrite else ranks.broadcast(find_earlier(outdir, plan.train.dataset, minutes))
    if options:
        chosen = {name: options[name] for name in budget.CHOSEN if name in options and name not in typed}
        return make_plan(plan.options() | chosen), None, None
    splits = ranks.leader_first(lambda: load_splits(plan, place))
    plan, reason, clock = budget.begin(60 * minutes, plan, {*typed.defaults, *typed.values}, splits)
    print(f"Plan for {counted(minutes, 'minute')}: {reason}")
    return plan, splits, clock


def line_without_minutes(argv, plan, typed):
    """The typed command with the chosen options instead of --minutes."""
    words = [word for word in (sys.argv[1:] if argv is None else map(str, argv)) if word != "--resume"]
    for place in (i for i, word in enumerate(words) if word.partition("=")[0] == "--minutes"):
        del words[place : place + (1 if "=" in words[place] else 2)]
        break
    changed = flags(plan)
    more = [shlex.join(changed[name]) for name in budget.CHOSEN if name in changed and name not in typed]
    return f"{typed.program} {' '.join([shlex.join(words), *more]).strip()}"


def with_pictures(typed: Typed) -> Typed:
    """`python train.py pictures/`: a folder or zip file of pictures is the data set, unless a run has that name."""
    run = typed.of(RunOptions)
    if not (name := run.run_name) or "dataset" in typed or is_run(run) or not has_pictures(name):
        return typed
    values = {option: value for option, value in typed.values.items() if option != "run_name"}
    return replace(typed, values=values | {"dataset": f"folder:{name}"})


def is_run(run: RunOptions) -> bool:
    """Whether there is a run of this name."""
    return "/" not in run.run_name and Path(run.outdir, run.run_name).exists()


def plan_of(typed: Typed) -> Plan:
    """The plan from the flags; impossible ones are an error here, before any data is fetched."""
    values = typed.defaults | typed.values
    plan = make_plan(values | {"dataset": datasets.full_name(values.get("dataset", TrainConfig.dataset))})
    if plan.objective(plan.train.epochs - 1).name != plan.train.objective:
        raise UserError(f"--iw_warmup {values['iw_warmup']} leaves no epochs for iwae — lower it, or raise --epochs")
    return plan


def check_run(run):
    """Raise an error for contradicting flags, and for a run name that resembles a data set."""
    if run.run_name == LAST:
        raise UserError(f"--model {LAST} stands for the run trained last — choose another name for this one")
    if run.resume and run.overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it — give one of them")
    if not (name := run.run_name):
        return
    if meant := datasets.resembles(name):
        ways = f"did you mean --dataset {meant}? If not, give --outdir {Path(run.outdir, name)}"
        raise UserError(f"{name} would be the name of the run — {ways}")
    if name.lower().endswith(".zip") and not is_tree(name):
        raise UserError(f"there is no zip file {name} — check the name")
    if (is_tree(name) or "/" in name) and not is_run(run):
        kind = "folder" if os.path.isdir(name) else "zip file" if is_tree(name) else "file"
        why = f"is a {kind}, and --dataset names another" if has_pictures(name) else f"is a {kind} without pictures"
        raise UserError(f"{name} {why} — name pictures, or choose another name for the run")


def load_splits(plan, place):
    """The training and the test split."""
    model, config = plan.model, plan.train
    return [
        load_split(config.dataset, split, place, config.limit, model.image_size, config.channels, model.fit)
        for split in ("train", "test")
    ]


def make_trainer(typed, plan, run, place, state, splits=None):
    """Load the data and make a trainer, new or resumed from a state; the same on all ranks."""
    if options := ranks.broadcast(state and state.facts["options"]):
        plan = plan.resumed(typed, options)

    def load():
        weights = checkpoint.load(find_model(run.init)).model if run.init else None
        trainer = Trainer(plan, *(splits or load_splits(plan, place)), weights)
        if state:
            trainer.resume(state.model, None if run.reset_optimizer else state.optimizer, state.facts)
        return trainer

    trainer = ranks.leader_first(load)
    trainer.synchronize()
    return trainer


def print_options(trainer, folder, device_name):
    """Print the options of this run."""
    config, elbo = trainer.config, trainer.plan.elbo

    def of(images, split):
        return f"{len(images):,}" if len(images) == split.total else f"{len(images):,} of {split.total:,}"

    kl = f"{elbo.beta:g} KL"
    if elbo.beta_warmup:
        kl += f" (from {elbo.beta_start:g} within {counted(elbo.beta_warmup, 'epoch')})"
    objective = trainer.plan.objective(config.epochs).title(trainer.model.likelihood.words, kl)
    if trainer.plan.objective(0).name != config.objective:
        objective += f", after {counted(trainer.plan.rows['objective'].iw_warmup, 'epoch')} of the ELBO"
    tested = f"{of(trainer.test.images, trainer.test)} test image" + ("s" if len(trainer.test.images) > 1 else "")
    data = f"{of(trainer.train_numbers, trainer.train)} training and {tested}"
    warming = schedules.warmup(config, trainer.horizon)
    warmup = f" after {counted(warming, 'step')} of warm-up" if warming else ""
    times = trainer.epoch_steps * trainer.batch_size // (count := len(trainer.train_numbers))
    changed = f", {AUGMENTATIONS[trainer.augment]}" if trainer.augment != "none" else ""
    rows = [
        ("Device", device_name),
        ("Data set", f"{config.dataset}, {data}" + (changed if times == 1 else "")),
        *([("Factors", trainer.train.factors.words)] if trainer.train.factors else []),
        *(row for row in model_rows(trainer.model) if row[0] != "Likelihood"),
        ("Objective", objective),
        ("Optimizer", f"{OPTIMIZERS[config.optimizer]}, weight decay {config.weight_decay:g}"),
        ("Learning rate", f"{config.lr:g}, {config.lr_schedule}{warmup}"),
        ("Batch size", trainer.batch_size),
        ("Epochs", f"{config.epochs:g} of {counted(trainer.epoch_steps, 'step')}"),
        ("Random seed", config.seed),
        ("Not default", changed_options(trainer.plan) or "none"),
        ("Output", folder.model_file),
    ]
    print("Options:")
    for title, words in rows:
        print(f"  {title}: {words}")
    if times > 1:
        few = f"{counted(count, 'picture')} {'is' if count == 1 else 'are'} few"
        print(f"{few}: each epoch shows them {times} times{changed}")
    if oblong := trainer.train.oblong:
        how = {"crop": "cropped to their central square (--fit pad shows all of them)", "pad": "padded with white"}
        print(
            f"{counted(oblong, 'picture')} {'is' if oblong == 1 else 'are'} not square: {how[trainer.model.config.fit]}"
        )
    if slow := trainer.slow_channels:
        counts = " and ".join(map(str, slow))
        print(f"Hint: MLX convolves {counts} channels slowly on a GPU; multiples of 16 are fast (see --max_filters).")


def changed_options(plan):
    """The training options that differ from their defaults, as flags; the model's are on other lines."""
    own = {name for name, _, _ in options_of(plan.model)}
    return ", ".join(" ".join(words) for name, words in flags(plan).items() if name not in own)


def print_epoch(entry, before, trainer, seconds):
    """Print a row of the table of epochs, with a header first, and a warning if the posterior collapsed."""
    epochs, elbo = math.ceil(trainer.config.epochs), trainer.plan.elbo
    plus, equals = "+=" if trainer.plan.objective(epochs - 1).samples == 1 else "  "  # the ELBO is the sum of its terms
    cells = [
        ("epoch", f"{entry['epoch']}/{epochs}"),
        ("loss", entry["loss"]),
        ("=", equals),
        ("recon", entry["reconstruction"]),
        ("+", plus),
        ("KL", entry["kl"]),
        *([("β", f"{entry['beta']:.3g}")] if elbo.beta != 1 or elbo.beta_warmup else []),
        *([("held out", entry["held_out"]["loss"])] if "held_out" in entry else []),
        ("test", entry["test"]["loss"]),
        ("images/s", f"{entry['images_per_second']:,.0f}"),
        ("time", f"{seconds:.1f} s" if seconds < 99.95 else duration(seconds)),
    ]
    widths = WIDTHS | {"epoch": max(5, 2 * len(str(epochs)) + 1)}
    fixed, losses = [widths[title] for title, _ in cells if title in widths], [c for c in cells if c[0] not in widths]
    wide = min(10, (WIDTH - sum(fixed)) // len(losses))
    columns = [(title, value, widths.get(title, wide)) for title, value in cells]
    if before is None:
        if entry["first_step_seconds"] > 3:
            print(f"The first step took {duration(entry['first_step_seconds'])} to compile (not in images/s)")
        print("".join((value if title in "=+" else title).rjust(width) for title, value, width in columns))
    print("".join(decimal(value, width - 1).rjust(width) for _, value, width in columns))
    if entry["collapsed"] and not (before and before["collapsed"]):
        warn(f"{COLLAPSED}; try --beta_warmup, --free_bits or a smaller --beta")


def decimal(value, width):
    """A number with up to two decimals, as many as fit the column; text unchanged."""
    texts = [f"{value:.{digits}f}" for digits in (2, 1, 0)] if isinstance(value, float) else [value]
    return next((text for text in texts if len(text) <= width), texts[-1])


if __name__ == "__main__":
    main()
