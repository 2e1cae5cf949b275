"""python convert.py model.pth model.npz

Convert a checkpoint: reads .npz, .safetensors and PyTorch's .pth, writes .npz
or .safetensors, by the ending of OUT. With --fit_prior the model also gets a
mixture of Gaussians to draw samples from.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError
from toolkit.options import option, path, text
from toolkit.shell.command import beside, command
from toolkit.shell.opening import Opened, PlaceOptions, check_effects, check_file, load_for
from toolkit.shell.parser import parse
from toolkit.wording import counted, ending_in_words


@dataclass(frozen=True)
class ConvertOptions:
    input: str = option(..., "checkpoint to read", "model", kind=path, unit="IN", positional=True)
    output: str = option(..., "checkpoint to write", "output", kind=path, unit="OUT", positional=True)
    dataset: str | None = option(
        None,
        "what the model was trained on, for files that do not say",
        "data",
        kind=text,
        unit="NAME",
        default_text="as IN says",
    )
    fit_prior: bool = option(False, "fit a mixture of Gaussians to the training images, to draw samples from", "model")


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ConvertOptions, PlaceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(ConvertOptions)
    from toolkit import datasets
    from toolkit.files.progress import Bars
    from toolkit.files.writing import is_stream
    from toolkit.formats import checkpoint
    from toolkit.layers import device
    from toolkit.model.mixture import fit_prior

    if Path(args.output).suffix.lower() not in checkpoint.ENDINGS and not is_stream(args.output):
        raise UserError(f"{args.output} {ending_in_words(args.output)} — write .npz or .safetensors")
    check_file(args.output)
    if not args.fit_prior:
        check_effects(typed, ["data_dir", "cache_dir"], "a conversion without --fit_prior")
    device_name = device.start(cpu=not args.fit_prior)
    model, facts = checkpoint.load_model(args.input)
    if args.dataset:
        facts["dataset"] = datasets.public_name(datasets.full_name(args.dataset))
    if args.fit_prior and "dataset" not in facts:
        raise UserError(f"{args.input} does not say what it was trained on — give --dataset")
    with beside(args.output):
        if args.fit_prior:
            opened = Opened(model, facts, Path(args.input), device_name)
            train = load_for(typed, opened, "train")
            with Bars() as watch:
                model.mixture = fit_prior(model, train, watch=watch)
            print(
                f"Prior: {model.mixture.words}, fitted to {counted(len(train.images), 'image')} of {facts['dataset']}"
            )
        checkpoint.save_model(args.output, model, facts)
        print(f"{args.input} → {args.output}: {counted(model.parameter_count(), 'parameter')}")


if __name__ == "__main__":
    main()
