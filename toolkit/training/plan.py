"""What a run is to do: its options, as they were typed or as its state remembers them.

Adding an option to training is one line in TrainConfig and its use where it acts (toolkit/training/trainer.py,
toolkit/training/schedules.py).
"""

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UserError
from toolkit.options import Option, count, from_values, integer, number, option, options_of, rate, seed, text, weight
from toolkit.wording import by_value

OLDEST = {"recipe": "classic"}  # of runs that are older than recipes
START_AGAIN = "start again with --overwrite instead of --resume"
COLLAPSED_KL = 0.001  # nats of KL per image, below which the latents carry no information
HELD_OUT = 12  # one training image in so many is held out
PATIENCE, STALLED = 15, 1e-4  # epochs without a relative gain of so much halve the learning rate (plateau)


RECIPES = {  # what --recipe stands for, wherever a flag does not say otherwise
    "fast": {
        "optimizer": "muon",
        "lr": 0.01,
        "lr_schedule": "linear",
        "lr_warmup": 0.5,
        "batchsize": 64,
        "weight_decay": 0.05,
    },
    "classic": {
        "optimizer": "adamw",
        "lr": 0.001,
        "lr_schedule": "constant",
        "lr_warmup": 0,
        "batchsize": 128,
        "weight_decay": 0.01,
    },
}


OF_ARCHITECTURES = {  # what the fast recipe has for some of them
    "mlp": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01},  # it has no kernels for Muon
    "resnet": {"lr": 0.003},
}


def by_recipe(name: str) -> Callable[[], str]:
    """The default of an option that the recipe decides, in words."""

    def words() -> str:
        usual, classic = (RECIPES[recipe][name] for recipe in ("fast", "classic"))
        others = {arch: recipe[name] for arch, recipe in OF_ARCHITECTURES.items() if name in recipe}
        return ", or ".join([str(usual), *by_value(others)]) + f", classic {classic}"

    return words


def recipe_option(name: str, about: str, **more: Any) -> Any:
    """An option whose default the recipe decides."""
    return option(None, about, "optimisation", default_text=by_recipe(name), **more)


def dataset_help() -> str:
    from toolkit.datasets import NAMES

    return f"{', '.join(NAMES)}, where folder:PATH is for your own pictures"


def objectives() -> dict[str, Any]:
    from toolkit.model.objectives import OBJECTIVES

    return OBJECTIVES


def objectives_help() -> str:
    return "; ".join(f"{known.name}: {known.words}" for known in objectives().values())


# Options that other commands have as well.


def dataset_option(default: str | None, default_text: str = "") -> Any:
    return option(default, dataset_help, "data", kind=text, unit="NAME", default_text=default_text)


def limit_option() -> Any:
    about = "use the first N images of each split only"
    return option(None, about, "data", kind=count, unit="N", default_text="all")


def seed_option(group: str) -> Any:
    return option(0, "random seed", group, kind=seed, unit="N")


@dataclass(frozen=True)
class TrainConfig:
    """The options of training that are not the model's own."""

    dataset: str = dataset_option("mnist")
    limit: int | None = limit_option()
    channels: int | None = option(
        None, "1 for grey, 3 for colour", "data", kind=integer, choices=(1, 3), default_text="as the data"
    )
    conditional: bool = option(
        False, "tell encoder and decoder the class of each image; bounded: the encoder alone", "model"
    )
    objective: str = option("elbo", objectives_help, "objective", kind=text, choices=objectives)
    iw_samples: int = option(8, "iwae: samples of each image", "objective", kind=number(int, 1, 10**5), unit="K")
    iw_warmup: int = option(
        0, "iwae: first epochs that use elbo, which is cheaper", "objective", kind=number(int, 0, 10**6), unit="EPOCHS"
    )
    beta: float = option(1.0, "weight of the KL term", "objective", kind=weight, unit="X")
    beta_warmup: float = option(
        0,
        "increase that weight linearly from --beta_start over the first epochs",
        "objective",
        kind=weight,
        unit="EPOCHS",
        aliases=("beta_annealing_period",),
    )
    beta_start: float = option(
        0.001, "weight of the KL term at the start of --beta_warmup", "objective", kind=weight, unit="X"
    )
    free_bits: float = option(
        0, "KL per latent dimension below this many nats is not penalised", "objective", kind=weight, unit="NATS"
    )
    epochs: int = option(
        50, "number of epochs", "optimisation", kind=count, unit="N", aliases=("num_epochs",), changeable=True
    )
    recipe: str = option(
        "fast",
        f"the defaults of {', '.join(RECIPES['fast'])}; classic: those of the MLX example",
        "optimisation",
        kind=text,
        choices=tuple(RECIPES),
    )
    optimizer: str | None = recipe_option(
        "optimizer",
        "muon: Muon for kernels and hidden layers, AdamW for the rest; adamw: AdamW alone",
        kind=text,
        choices=("muon", "adamw"),
    )
    lr: float | None = recipe_option(
        "lr",
        "highest learning rate of AdamW; Muon has twice as much",
        kind=rate,
        unit="X",
        aliases=("learning_rate",),
        changeable=True,
    )
    lr_schedule: str | None = recipe_option(
        "lr_schedule",
        "linear, cosine: down to zero at the last epoch; plateau: halved when the held-out loss has not improved for "
        f"{PATIENCE} epochs",
        kind=text,
        choices=("linear", "cosine", "constant", "plateau"),
    )
    lr_warmup: float | None = recipe_option(
        "lr_warmup", "increase the learning rate from zero over the first epochs", kind=weight, unit="EPOCHS"
    )
    batchsize: int | None = recipe_option("batchsize", "batch size", kind=count, unit="N", aliases=("batch_size",))
    weight_decay: float | None = recipe_option(
        "weight_decay", "weight decay of what Muon trains, or of AdamW alone", kind=weight, unit="X"
    )
    keep_best: bool = option(
        False, f"hold out 1/{HELD_OUT} of the training images and keep the epoch that is best on them", "optimisation"
    )
    seed: int = seed_option("optimisation")


@dataclass(frozen=True)
class Plan:
    """All options that a run's state remembers: those of training, and those of the model (a ModelConfig)."""

    train: TrainConfig
    model: Any

    def __post_init__(self):
        """Fill in what flags have left to the recipe."""
        own = OF_ARCHITECTURES.get(self.model.arch, {})
        values = RECIPES[self.train.recipe] | (own if self.train.recipe == "fast" else {})
        missing = {name: value for name, value in values.items() if getattr(self.train, name) is None}
        object.__setattr__(self, "train", dataclasses.replace(self.train, **missing))
        if "muon" == self.train.optimizer != own.get("optimizer", "muon"):
            raise UserError(f"--arch {self.model.arch} has no kernels for Muon — leave --optimizer muon out")

    def objective(self, epoch: int) -> Any:
        """What training minimises after so many epochs: a row of toolkit/model/objectives.py."""
        name = self.train.objective if epoch >= self.train.iw_warmup else "elbo"
        row = objectives()[name]
        return row(*(getattr(self.train, option) for option in row.takes))

    def parts(self) -> list[Any]:
        """The dataclasses of options: of training, of the model, and of its architecture if it has some."""
        return [self.train, self.model, *filter(None, [self.model.net])]

    def options(self) -> dict[str, Any]:
        """Name and value of every option, as states and checkpoints hold them."""
        return {name: getattr(part, name) for part in self.parts() for name, _, _ in options_of(part)}

    def known(self) -> dict[str, Option]:
        """Every option by its name."""
        return {name: about for part in self.parts() for name, _, about in options_of(part)}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, which recipe and architecture decide for some."""
        first = Plan(TrainConfig(), type(self.model)())
        usual = Plan(TrainConfig(recipe=self.train.recipe), type(self.model)(arch=self.model.arch)).options()
        usual |= {"recipe": first.train.recipe, "arch": first.model.arch}
        return {name: value for name, value in self.options().items() if value != usual[name]}

    def model_config(self, channels: int = 1, num_classes: int = 0) -> Any:
        """The configuration of the model, given what the data are."""
        num_classes = num_classes if self.train.conditional else 0
        return dataclasses.replace(self.model, channels=self.train.channels or channels, num_classes=num_classes)

    def resumed(self, typed: Collection[str], remembered: dict[str, Any]) -> "Plan":
        """The plan of a run that goes on: what it remembers, with those options typed now that may change.

        Options that are younger than the run have their defaults.
        """
        asked = self.options()
        remembered = OLDEST | remembered
        known = self.known()
        changeable = {name for name, about in known.items() if about.changeable}
        values = remembered | {name: asked[name] for name in set(typed) & changeable}
        try:
            plan = made(values)
        except (ValueError, KeyError, UserError) as error:
            raise UserError(f"the state of the run to resume is damaged ({error}) — {START_AGAIN}") from None
        for name, before in plan.options().items():
            if name in typed and asked.get(name) != before:
                raise UserError(
                    f"--{name} {asked[name]} contradicts the run to resume, which has {before} — give the same, or "
                    "choose another --outdir"
                )
        return plan


def remembered(options: dict[str, Any]) -> Plan:
    """The plan by which a model was trained, from the options in its file; ValueError where they make none."""
    return made(OLDEST | options)


def flags(plan: Plan) -> dict[str, list[str]]:
    """The words by which train.py is asked for each option that is not at its default."""
    known = plan.known()
    return {
        name: [f"--{name}"] if known[name].kind is None else [f"--{name}", str(value)]
        for name, value in plan.changed().items()
    }


def made(values):
    """The plan with these values of options; ValueError where one is unknown or impossible."""
    from toolkit.architectures import config_of

    own = {name for name, _, _ in options_of(TrainConfig)}
    train = from_values(TrainConfig, {name: value for name, value in values.items() if name in own})
    return Plan(train, config_of({name: value for name, value in values.items() if name not in own}))


def differences(plan: Plan, remembered: dict[str, Any]) -> list[str]:
    """The options, as flags, that differ between a plan and what an earlier run remembers."""
    asked = plan.options()
    return [f"--{name}" for name in asked if asked[name] != remembered.get(name, asked[name])]
