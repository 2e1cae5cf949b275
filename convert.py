"""python convert.py model.pth model.npz
python convert.py last digits/ --license mit

Convert a checkpoint: reads .npz, .safetensors and PyTorch's .pth; writes .npz
or .safetensors, by the extension of OUT, or a folder for the Hugging Face Hub
if OUT ends in /. With --fit_prior, also fits a mixture of Gaussians or a
flow to sample from.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError
from toolkit.files.targets import check_ending, check_target
from toolkit.formats import hub
from toolkit.options import option, path, with_conditions, word
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import check_effects, parse
from toolkit.wording import counted, public_name


@dataclass(frozen=True)
class ConvertOptions:
    input: str = option(
        ..., "file or folder, last, or hf:org/name", "model", kind=path, unit="IN", positional=True, common=True
    )
    output: str = option(
        ..., "checkpoint, or a folder if it ends in /", "output", kind=path, unit="OUT", positional=True, common=True
    )
    license: str = option("unknown", "licence for model cards", "output", kind=word, common=True, aliases=("licence",))
    dataset: str | None = option(None, "training data set", "data", default_text="the one stored in IN")
    plain: bool = option(False, "omit the fitted prior, for programs that reject extra arrays", "output")
    fit_prior: str | None = option(
        None, "fit a prior to draw samples from", "model", choices=flags.FITTED, bare=flags.FITTED[0], common=True
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ConvertOptions, with_conditions(flags.PlaceOptions, only_with=("fit_prior",)), flags.WriteOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(ConvertOptions)
    from toolkit import datasets
    from toolkit.formats import checkpoint
    from toolkit.machine import device
    from toolkit.model.fitting import fit_prior
    from toolkit.pictures import card
    from toolkit.pictures.images import png
    from toolkit.shell.data import load_for, trained_on
    from toolkit.shell.opening import find_model, shared_name

    to_folder = args.output.endswith("/")
    if not to_folder:
        check_effects(typed, ["license"], "an OUT that is a file")
        check_ending(args.output, (*checkpoint.ENDINGS, "/ for a folder"))
    elif not re.fullmatch(r"[\w.+-]+", args.license):
        raise UserError(f"--license {args.license} is not a Hub licence identifier — give one such as mit or cc-by-4.0")
    if not typed.of(flags.WriteOptions).overwrite:
        if to_folder:
            hub.check_folder(Path(args.output), args.input)
        else:
            check_target(args.output, inputs=[args.input])
    device.start(cpu=not args.fit_prior)
    with beside(args.output):
        source = find_model(args.input)
    loaded = checkpoint.load(source)
    if args.dataset:
        loaded.dataset = public_name(datasets.full_name(args.dataset))
    if args.fit_prior and not loaded.dataset:
        raise UserError(f"{args.input} does not name its training data set — give --dataset")
    with beside(args.output):
        if args.fit_prior:
            dataset = datasets.full_name(args.dataset) if args.dataset else trained_on(source, loaded.dataset)
            train = load_for(loaded, dataset, "train", typed.of(flags.PlaceOptions))
            loaded.sampler = fit_prior(args.fit_prior, loaded.model, train)
            shown = counted(len(train.images), "image")
            print(f"Prior: {loaded.sampler.words}, fitted to {shown} of {loaded.dataset}")
        if args.plain:
            check_plain(loaded)
            loaded.sampler = None
        if to_folder:
            name = re.sub(r"\.(npz|safetensors|pth)$", "", shared_name(args.input, source).rpartition("/")[2])
            text, picture = card.make(name, loaded, args.license), png(card.samples(loaded))
            print_folder(checkpoint.save_folder(args.output, loaded, text, picture), args.license)
        else:
            checkpoint.save(args.output, loaded)
        print(f"{args.input} → {args.output}: {counted(loaded.model.parameter_count(), 'parameter')}")


def check_plain(loaded):
    """Raise an error if programs that only know encoder and decoder would draw wrong samples from a model."""
    config = loaded.model.config
    if config.decoder_classes or loaded.model.prior.parameters() or loaded.model.likelihood.mean_of[0] != "sigmoid":
        raise UserError("--plain: other programs cannot sample from this model — leave --plain out")
    if loaded.model.likelihood.parameters():
        raise UserError("--plain: other programs cannot read the arrays of its likelihood — leave --plain out")


def print_folder(written, license):
    """Print the files of a folder for the Hugging Face Hub, and what is missing."""
    print(f"Folder for the Hugging Face Hub: {', '.join(written)}")
    if hub.CARD not in written:
        print(f"{hub.CARD} exists and was kept: delete it first to get a new one")
    elif license == "unknown":
        print(f"Its licence is unknown: give --license, or add it to {hub.CARD}")


if __name__ == "__main__":
    main()
