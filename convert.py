"""python convert.py model.pth model.npz

Convert a checkpoint: reads .npz, .safetensors and PyTorch's .pth, writes .npz
or .safetensors, by the ending of OUT.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError
from toolkit.options import option, path, text
from toolkit.shell.command import beside, command
from toolkit.shell.opening import check_file
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


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return (ConvertOptions,)


@command
def main(argv: list[str] | None = None) -> None:
    args = parse(__doc__, argv, *options()).of(ConvertOptions)
    from toolkit import datasets
    from toolkit.files.writing import is_stream
    from toolkit.formats import checkpoint
    from toolkit.layers import device

    if Path(args.output).suffix.lower() not in checkpoint.ENDINGS and not is_stream(args.output):
        raise UserError(f"{args.output} {ending_in_words(args.output)} — write .npz or .safetensors")
    check_file(args.output)
    device.start(cpu=True)
    model, facts = checkpoint.load_model(args.input)
    facts.pop("config", None)
    if args.dataset:
        facts["dataset"] = datasets.public_name(datasets.full_name(args.dataset))
    with beside(args.output):
        checkpoint.save_model(args.output, model, facts)
        print(f"{args.input} → {args.output}: {counted(model.parameter_count(), 'parameter')}")


if __name__ == "__main__":
    main()
