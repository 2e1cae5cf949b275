"""python train.py --latent_dims 8

Train a variational autoencoder. Every epoch is scored on the test split, which
never chooses anything, and leaves two sheets of pictures beside the model.
"""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit import datasets
from toolkit.errors import UserError
from toolkit.files.progress import Bars, bar
from toolkit.formats import checkpoint
from toolkit.formats.description import model_rows
from toolkit.machine import device, ranks
from toolkit.model.mixture import fit, latent_vectors
from toolkit.options import option, options_of, path, run_name
from toolkit.pictures import images
from toolkit.shell.command import command
from toolkit.shell.data import load_split
from toolkit.shell.earlier import EarlierTraining, translated
from toolkit.shell.flags import DeviceOptions, PlaceOptions, check_effects
from toolkit.shell.opening import COLLAPSED, find_model
from toolkit.shell.parser import Typed, parse
from toolkit.shell.presets import PresetOptions, alike, preset
from toolkit.training.folder import run_folder
from toolkit.training.plan import Plan, TrainConfig, flags
from toolkit.training.tensorboard import Board
from toolkit.training.trainer import Trainer
from toolkit.wording import counted
from vae import ModelConfig


@dataclass(frozen=True)
class RunOptions:
    """Where a run keeps its files, and what it begins with. Its state need not remember any of it."""

    run_name: str | None = option(
        None,
        "optional name of the run: a sub-folder of --outdir",
        "output and resuming",
        kind=run_name,
        unit="RUN_NAME",
        positional=True,
    )
    outdir: str = option(
        "models", "output folder", "output and resuming", kind=path, unit="DIR", aliases=("save_dir", "runs_dir")
    )
    resume: bool = option(
        False,
        "resume the run in the same place; its options are restored, --epochs and --lr may be new",
        "output and resuming",
        aliases=("resume_if_exists",),
    )
    reset_optimizer: bool = option(False, "with --resume: forget the optimizer's state", "output and resuming")
    overwrite: bool = option(False, "replace the run in the same place", "output and resuming")
    tensorboard: str | None = option(
        None, "also write metrics and sheets for TensorBoard", "output and resuming", kind=path, unit="DIR"
    )
    init: str | None = option(
        None,
        "begin with the weights of a model",
        "model",
        kind=path,
        unit="FILE",
        aliases=("initial_checkpoint_path",),
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ModelConfig, TrainConfig, PlaceOptions, RunOptions, PresetOptions, EarlierTraining, DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = alike(translated(preset(parse(__doc__, argv, *options()), options())))
    device_name = device.start(typed.of(DeviceOptions).cpu, together=True)
    plan, run = plan_of(typed), typed.of(RunOptions)
    check_run(typed, run)
    ranks.check_same(plan.options(), "start the same command on all of them")
    with ExitStack() as held:
        with ranks.fail_together():
            folder = held.enter_context(run_folder(Path(run.outdir, run.run_name or ""), plan))
            board = Board(run.tensorboard) if run.tensorboard and folder.is_here else None
            state = folder.state() if run.resume else None
            is_done = not run.resume and not run.overwrite and not folder.check_free()
        if ranks.broadcast(is_done):
            print(
                f"Already trained: {folder.model_file}, with these options for {counted(plan.train.epochs, 'epoch')}."
            )
            print("Pass --resume and a larger --epochs to train further, or --overwrite to start again.")
            return
        if memory := ranks.broadcast(state and state.facts):
            plan = plan.resumed(typed.values, memory["options"])
        trainer = ranks.leader_first(lambda: make_trainer(typed, plan, run, state))
        trainer.same_on_all_ranks()
        with ranks.fail_together():
            folder.begin(trainer, device_name, resumed=state is not None, overwrite=run.overwrite)
        print_options(trainer, folder, device_name)
        if run.resume:
            fresh = f"There is no run to resume in {folder.folder}: starting a new one"
            print(f"Resuming after epoch {trainer.epoch}" if state else fresh)
            if state and (before := state.facts.get("device", device_name)) != device_name:
                print(f"The run was on another device ({before}): it will not end with the same bits as there.")
        if finished := trainer.epoch >= plan.train.epochs:
            done = "1 epoch is" if trainer.epoch == 1 else f"All {trainer.epoch} epochs are"
            print(f"{done} done. Pass a larger --epochs to train further.")
        try:
            train(trainer, folder, board)
            add_prior(trainer, folder)
        except KeyboardInterrupt:
            done = (
                f"add --resume to continue from epoch {trainer.epoch}" if trainer.epoch else "run it again to restart"
            )
            at = f"interrupted in epoch {trainer.epoch + 1} of {plan.train.epochs}"
            if trainer.epoch >= plan.train.epochs:
                at, done = "interrupted while the prior was fitted", "add --resume to fit it"
            raise KeyboardInterrupt(f"{at} — {done}") from None
        if finished:
            return
        print(f"Model: {folder.model_file}")
        print(f"Sheets, log and state: {folder.folder}/")


def train(trainer, folder, board) -> None:
    """All epochs that are left: batches and steps, a score, the files, a line."""
    sheets = {
        "reconstructions": lambda: images.png(images.sheet(images.pairs(*trainer.reconstructions()), columns=8)),
        "samples": lambda: images.png(images.sheet(images.to_bytes(trainer.samples()))),
    }
    epochs, count = trainer.config.epochs, len(trainer.train_numbers)
    title = "Epoch {}/{}".format
    # One bar for the whole run, so that it says how long that still takes.
    with bar(epochs * count, title(trainer.epoch + 1, epochs), done=trainer.epoch * count) as shown:
        while trainer.epoch < epochs:
            shown.set_description_str(title(trainer.epoch + 1, epochs), refresh=False)
            for batch in trainer.batches():
                loss = trainer.step(batch)
                shown.set_postfix_str(f"loss {loss:.2f}", refresh=False)
                shown.update(batch.count)
            entry = trainer.end_epoch()
            folder.save(trainer, entry, sheets)
            if board:
                board.record(entry, folder.folder)
            shown.clear()
            print_epoch(entry, epochs)


def add_prior(trainer, folder) -> None:
    """Fit a mixture to the latent vectors of the training images: what samples are drawn from by default."""
    kept = folder.without_sampler()
    if not ranks.broadcast(kept is not None):
        return
    model = kept.model if kept else trainer.model
    model.update(ranks.broadcast_arrays(model.parameters()))
    try:
        with Bars() as watch:
            codes = latent_vectors(model, trainer.train, watch)
            if kept:
                kept.sampler = fit(*codes, trainer.config.seed, watch)
                folder.save_again(kept)
                print(f"Prior for samples: {kept.sampler.words}")
    except UserError as error:
        print(f"No prior was fitted: {str(error).partition(' — ')[0]}")


def plan_of(typed: Typed):
    """The plan that the flags ask for; impossible ones stop here, before any data is fetched."""
    config = typed.of(TrainConfig)
    plan = Plan(replace(config, dataset=datasets.full_name(config.dataset)), typed.of(ModelConfig))
    if plan.train.iw_warmup >= plan.train.epochs:
        raise UserError(f"--iw_warmup {plan.train.iw_warmup} leaves no epoch to iwae — take fewer, or more --epochs")
    check_effects(typed, plan.objective(plan.train.epochs).ignores, f"--objective {config.objective}")
    if not config.conditional:
        check_effects(typed, ["label_planes", "embed_factor"], "a model without --conditional")
    if "beta_start" in typed and not plan.train.beta_warmup:
        raise UserError("--beta_start needs --beta_warmup EPOCHS — or give the weight of KL as --beta")
    return plan


def check_run(typed, run):
    """Stop where flags contradict each other, and question a run name that was probably meant as a data set."""
    if run.resume and run.overwrite:
        raise UserError("--resume continues a run and --overwrite replaces it — give one of them")
    if not run.resume:
        check_effects(typed, ["reset_optimizer"], "a new run")
    if run.run_name and (meant := datasets.resembles(run.run_name)):
        raise UserError(
            f"{run.run_name} would be the name of the run — did you mean --dataset {meant}? "
            f"If not, say --outdir {Path(run.outdir, run.run_name)}"
        )


def make_trainer(typed, plan, run, state):
    """Load the data, and make a trainer that begins, or goes on from a state."""
    weights = checkpoint.load(find_model(run.init)).model if run.init else None
    config = plan.train
    splits = (
        load_split(config.dataset, split, typed.of(PlaceOptions), config.limit, plan.model.image_size, config.channels)
        for split in ("train", "test")
    )
    trainer = Trainer(plan, *splits, weights)
    if state:
        trainer.resume(state.model, None if run.reset_optimizer else state.optimizer, state.facts)
    return trainer


def print_options(trainer, folder, device_name):
    """What this run is, in words."""
    config = trainer.config

    def of(images, split):
        return f"{len(images):,}" if len(images) == split.total else f"{len(images):,} of {split.total:,}"

    kl = f"{config.beta:g} KL"
    if config.beta_warmup:
        kl += f" (from {config.beta_start:g} within {config.beta_warmup:g} epochs)"
    objective = trainer.plan.objective(config.epochs).title(trainer.model.likelihood.words, kl)
    if 0 < config.iw_warmup < config.epochs:
        objective += f", after {counted(config.iw_warmup, 'epoch')} of the ELBO"
    tested = of(trainer.test.images, trainer.test) + (
        " test image" if len(trainer.test.images) == 1 else " test images"
    )
    data = f"{of(trainer.train_numbers, trainer.train)} training and {tested}"
    rows = [
        ("Device", device_name),
        ("Data set", f"{config.dataset}, {data}"),
        *(row for row in model_rows(trainer.model) if row[0] != "Likelihood"),
        ("Objective", objective),
        ("Optimizer", optimizer_in_words(config)),
        ("Batch size", trainer.batch_size),
        ("Epochs", config.epochs),
        ("Random seed", config.seed),
        ("Not default", changed_options(trainer.plan) or "none"),
        ("Output", folder.model_file),
    ]
    print("Options:")
    for title, words in rows:
        print(f"  {title}: {words}")


def optimizer_in_words(config):
    """The optimizer with its learning rate."""
    name = {"muon": "Muon and AdamW", "adamw": "AdamW"}[config.optimizer]
    warmup = f" after a warm-up of {config.lr_warmup:g} epochs" if config.lr_warmup else ""
    return f"{name}, learning rate {config.lr:g} ({config.lr_schedule}{warmup}), weight decay {config.weight_decay:g}"


def changed_options(plan):
    """The options of training that differ from their defaults, as flags; those of the model are said in other lines."""
    own = {name for name, _, _ in options_of(plan.train)}
    return ", ".join(" ".join(words) for name, words in flags(plan).items() if name in own)


def print_epoch(entry, epochs):
    """The line of an epoch, and a warning where it has collapsed."""
    beta = f" | β {entry['beta']:.3f}" if entry["beta"] != 1 else ""
    held_out = f" | Held out {entry['held_out']['loss']:7.2f}" if "held_out" in entry else ""
    if entry["first_step_seconds"] > 3:
        print(f"The first step took {entry['first_step_seconds']:.1f} s, to compile (not in the throughput)")
    print(
        f"Epoch {entry['epoch']:{len(str(epochs))}d}/{epochs} | Loss {entry['loss']:7.2f} | "
        f"Recon {entry['reconstruction']:7.2f} | KL {entry['kl']:6.2f}{beta}{held_out} | "
        f"Test {entry['test']['loss']:7.2f} | {entry['images_per_second']:6.0f} images/s | {entry['seconds']:5.1f} s"
    )
    if entry["collapsed"]:
        print(f"Warning: {COLLAPSED}; try --beta_warmup, --free_bits or a smaller --beta", file=sys.stderr)


if __name__ == "__main__":
    main()
