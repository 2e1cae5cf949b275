"""The plan of a run: all of its options, as typed or as stored in its state.

Only `make_plan` makes one: recipe and architecture set the options that were not given, and then the plan does not
change. To add an option, declare it in TrainConfig, or in the options of a row, and use it in
toolkit/training/trainer.py or toolkit/training/schedules.py.
"""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from toolkit.architectures import ModelConfig
from toolkit.errors import UserError
from toolkit.model.inputs import PIXELS
from toolkit.model.likelihoods import LIKELIHOODS
from toolkit.model.objectives import Elbo, ImportanceWeighted
from toolkit.options import (
    DATASETS,
    Option,
    count,
    from_values,
    in_epochs,
    number,
    option,
    options_of,
    passes,
    rate,
    seed,
    weight,
    whole,
)
from toolkit.wording import by_value, plain, public_name

OLDEST = {"recipe": "classic"}  # for runs from before recipes existed
START_AGAIN = "start again with --overwrite instead of --resume"
COLLAPSED_KL = 0.001  # nats of KL per image; below this, the latents carry no information
HELD_OUT = 12  # one of 12 training images is held out
PATIENCE, STALLED = 15, 1e-4  # epochs and least relative gain: without it the learning rate halves (plateau)

AUGMENTATIONS = {"none": "unchanged", "mirror": "mirrored at random", "crop": "mirrored and shifted at random"}
SCHEDULES = ("linear", "cosine", "constant", "plateau")
DECIDED = ("optimizer", "lr", "lr_schedule", "lr_warmup", "batchsize", "weight_decay")  # set by the recipe
RECIPES = {
    "fast": dict(zip(DECIDED, ("muon", 0.01, "linear", 500, 64, 0.05), strict=True)),
    "classic": dict(zip(DECIDED, ("adamw", 0.001, "constant", 0, 128, 0.01), strict=True)),
}
RECIPES["samples"] = RECIPES["fast"] | {"latent_dims": 32, "beta": 0.3, "prior": "flow"}
OF_ARCHITECTURES = {  # their own defaults, except in the classic recipe
    "mlp": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01},  # has no kernels for Muon
    "resnet": {"lr": 0.003},
}


def decided(name: str, about: str, **more: Any) -> Any:
    """An option whose default depends on the recipe, and can differ by architecture."""
    usual, classic = (RECIPES[recipe][name] for recipe in ("fast", "classic"))
    others = by_value({arch: recipe[name] for arch, recipe in OF_ARCHITECTURES.items() if name in recipe})
    words = ", ".join([str(usual), *others, f"classic {classic}"])
    return option(usual, about, "optimisation", default_text=words, **more)


@dataclass(frozen=True)
class ElboOptions:
    beta: float = option(1.0, "weight of the KL term", "objective", kind=weight, common=True)
    beta_warmup: float = option(
        0, "epochs over which β rises to --beta", "objective", kind=in_epochs, aliases=("beta_annealing_period",)
    )
    beta_start: float = option(0.001, "β at the start", "objective", kind=weight, only_with=("beta_warmup",))
    free_bits: float = option(
        0, "KL per dimension, or in total with a flow, not penalised", "objective", kind=weight, unit="NATS"
    )

    def objective(self, epoch: int) -> Elbo:
        """The objective after `epoch` epochs."""
        return Elbo(self.free_bits)


@dataclass(frozen=True)
class IwaeOptions:
    iw_samples: int = option(8, "samples per image", "objective", kind=number(int, 1, 10**5, unit="K"))
    iw_warmup: int = option(0, "epochs of elbo before iwae", "objective", kind=number(int, 0, 10**6, unit="EPOCHS"))

    def objective(self, epoch: int) -> Elbo | ImportanceWeighted:
        """The objective after `epoch` epochs: first the ELBO, which is cheaper."""
        return ImportanceWeighted(self.iw_samples) if epoch >= self.iw_warmup else Elbo()


class Objective(NamedTuple):
    name: str
    words: str
    Options: type


OBJECTIVES = {
    known.name: Objective(known.name, known.words, own)
    for known, own in ((Elbo, ElboOptions), (ImportanceWeighted, IwaeOptions))
}


@dataclass(frozen=True)
class TrainConfig:
    """The training options of all runs."""

    dataset: str = option("mnist", DATASETS, "data", common=True)
    limit: int | None = option(None, "use the first N images of each split", "data", kind=count, default_text="all")
    channels: int | None = option(None, "1 grey, 3 RGB", "data", kind=count, choices=(1, 3), default_text="as the data")
    augment: str = option(
        "auto",
        "training images mirrored at random, or also shifted (crop); auto: crop for a few pictures, else none",
        "data",
        choices=("auto", *AUGMENTATIONS),
    )
    conditional: bool = option(False, "condition the model on class labels", "model", common=True)
    objective: str = option("elbo", "", "objective", rows=lambda: OBJECTIVES)
    epochs: float = option(
        50,
        "passes over the images, such as 2.5",
        "optimisation",
        kind=passes,
        common=True,
        aliases=("num_epochs",),
        changeable=True,
    )
    recipe: str = option(
        "fast",
        "fast; samples, for models to draw samples from; or classic, as in the MLX example",
        "optimisation",
        choices=tuple(RECIPES),
    )
    optimizer: str = decided("optimizer", "muon (AdamW for all but kernels) or adamw", choices=("muon", "adamw"))
    lr: float = decided(
        "lr", "peak learning rate; Muon uses twice this", kind=rate, aliases=("learning_rate",), changeable=True
    )
    lr_schedule: str = decided(
        "lr_schedule", "linear or cosine decay to 0, constant, or plateau: halved when it stalls", choices=SCHEDULES
    )
    lr_warmup: int = decided("lr_warmup", "learning-rate warm-up, at most a fifth of the run", kind=whole, unit="STEPS")
    batchsize: int = decided("batchsize", "batch size", kind=count, aliases=("batch_size",))
    weight_decay: float = decided("weight_decay", "weight decay", kind=weight)
    keep_best: bool = option(False, f"hold out 1/{HELD_OUT} of the training set, keep the best epoch", "optimisation")
    seed: int = option(0, "random seed", "optimisation", kind=seed, common=True)


SELECTORS = [of for part in (TrainConfig, ModelConfig) for of in options_of(part) if of[2].rows]


def known_options() -> dict[str, Option]:
    """Every option that a state can contain, by name."""
    rows = [row.Options for _, _, known in SELECTORS for row in known.rows().values() if row.Options]
    return {name: known for part in (TrainConfig, ModelConfig, *rows) for name, _, known in options_of(part)}


@dataclass(frozen=True)
class Plan:
    """All options of a run, each with its value."""

    train: TrainConfig
    model: ModelConfig
    rows: Mapping[str, Any]  # the options of each chosen row, by the option that selects the row

    @property
    def elbo(self) -> ElboOptions:
        """Weight of the KL term and free bits; the defaults for other objectives."""
        own = self.rows["objective"]
        return own if isinstance(own, ElboOptions) else ElboOptions()

    def objective(self, epoch: int) -> Elbo | ImportanceWeighted:
        """The objective after `epoch` epochs."""
        return self.rows["objective"].objective(epoch)

    def options(self) -> dict[str, Any]:
        """Name and value of every option, as states and checkpoints store them."""
        parts = (self.train, self.model, *self.rows.values())
        return {name: getattr(part, name) for part in parts for name, _, _ in options_of(part)}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, some of which depend on recipe, architecture and rows."""
        now, first = self.options(), make_plan().options()
        choices = {"recipe", "arch", *self.rows}
        usual = make_plan({name: now[name] for name in choices}).options()
        usual |= {name: first[name] for name in choices}
        return {name: value for name, value in now.items() if value != usual[name]}

    def model_config(self, channels: int = 1, num_classes: int = 0) -> ModelConfig:
        """The configuration of the model for these data."""
        num_classes = num_classes if self.train.conditional else 0
        return replace(self.model, channels=self.train.channels or channels, num_classes=num_classes)

    def resumed(self, typed: Collection[str], before: dict[str, Any]) -> "Plan":
        """The plan of a resumed run: its options `before`, with typed changes to those that may change.

        Options that did not exist then have their defaults.
        """
        before = current(before)
        asked, known = self.options(), known_options()
        if unknown := before.keys() - known.keys():
            why = f"the run to resume has an option {min(unknown)}, which is unknown in this version"
            raise UserError(f"{why} — use the version that started it, or {START_AGAIN}")
        changes = {name: asked[name] for name in asked if name in typed and known[name].changeable}
        try:
            plan = make_plan(before | changes)
        except (ValueError, KeyError, UserError) as error:
            raise UserError(f"the state of the run to resume is damaged ({error}) — {START_AGAIN}") from None
        now = plan.options()
        for name in (name for name in asked if name in typed):
            if name not in now:
                raise UserError(f"--{name} has no effect on the run to resume — leave it out")
            if asked[name] != now[name]:
                ours, theirs = plain(asked[name]), plain(now[name])
                ways = "give the same, or choose another --outdir"
                raise UserError(f"--{name} {ours} contradicts the run to resume, which has {theirs} — {ways}")
        return plan


def make_plan(values: Mapping[str, Any] | None = None) -> Plan:
    """The plan with these values of options; recipe, architecture and defaults set the others.

    Values of rows that are not chosen are ignored; ValueError for impossible values.
    """
    values = dict(values or {})
    recipe, arch = (values.get(name, of) for name, of in (("recipe", TrainConfig.recipe), ("arch", ModelConfig.arch)))
    own = OF_ARCHITECTURES.get(arch, {})
    values = RECIPES.get(recipe, {}) | (own if recipe != "classic" else {}) | values

    def make(part: type) -> Any:
        return from_values(part, {name: values[name] for name, _, _ in options_of(part) if name in values})

    rows = {name: known.rows().get(values.get(name, default)) for name, default, known in SELECTORS}
    own_options = {name: make(row.Options) for name, row in rows.items() if row and row.Options}
    model = replace(make(ModelConfig), net=own_options.get("arch"), prior_net=own_options.get("prior"))
    plan = Plan(make(TrainConfig), model, MappingProxyType(own_options))
    if "muon" == plan.train.optimizer != own.get("optimizer", "muon"):
        raise UserError(f"--arch {arch} has no kernels for Muon — leave --optimizer muon out")
    likelihood, pixels = plan.model.likelihood, plan.model.binarize
    if PIXELS[pixels].binary and LIKELIHOODS[likelihood].needs_grey:
        ways = f"leave --binarize {pixels} out, or use --likelihood bce"
        raise UserError(f"--likelihood {likelihood} needs grey levels, not pixels of 0 and 1 — {ways}")
    return plan


def current(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an earlier version in those of this one."""
    if "augment" not in options:  # then the warm-up was counted in epochs
        options = {name: value for name, value in options.items() if name != "lr_warmup"}
        options |= {"augment": "none"} if ":" in options.get("dataset", "") else {}
    return OLDEST | options


def remembered(options: dict[str, Any]) -> Plan:
    """The plan of a trained model, from the options in its file; ValueError if they are invalid."""
    if unknown := options.keys() - known_options().keys():
        raise ValueError(f"it has an unknown option {min(unknown)!r}")
    return make_plan(current(options))


def flags(plan: Plan) -> dict[str, list[str]]:
    """The flags of train.py for each option that differs from its default."""
    known, changed = known_options(), plan.changed().items()
    return {name: [f"--{name}", *([] if known[name].kind is None else [plain(value)])] for name, value in changed}


def command(plan: Plan) -> str:
    """The line that trains by a plan; a folder of pictures is named by the last part of its path."""
    public = {"dataset": ["--dataset", public_name(plan.train.dataset)]} if ":" in plan.train.dataset else {}
    return shlex.join(["python", "train.py", *chain(*(flags(plan) | public).values())])


def differences(plan: Plan, before: dict[str, Any]) -> list[str]:
    """The flags of the options that differ between a plan and an earlier run."""
    asked = plan.options()
    return [f"--{name}" for name in asked if asked[name] != before.get(name, asked[name])]
