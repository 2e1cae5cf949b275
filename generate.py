"""python generate.py --outfile samples.png

Sample new images from a model. Everything it needs is in the model's file.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.options import count, option, options_of, path, word
from toolkit.shell.command import beside, command
from toolkit.shell.opening import (
    DeviceOptions,
    ModelOptions,
    PriorOptions,
    SeedOptions,
    check_effects,
    check_file,
    open_model,
    sampler_of,
)
from toolkit.shell.parser import parse
from toolkit.wording import counted


@dataclass(frozen=True)
class GenerateOptions:
    nsamples: int = option(128, "number of samples", "sampling", kind=count, unit="N", aliases=("num_samples",))
    label: str | None = option(
        None,
        "class-conditional models: sample this class, or all, a row each",
        "sampling",
        kind=word,
        unit="CLASS",
        default_text="each class in turn",
    )
    vis_lat_space: bool = option(False, "models with 2 dims: a 16×16 grid over [-2, 2]² instead", "sampling")
    grid_size: int | None = option(
        None, "samples in a row of the sheet", "output", kind=count, unit="N", default_text="what fills it best"
    )
    outfile: str | None = option(
        None,
        "the sheet; - is standard output",
        "output",
        kind=path,
        unit="FILE",
        aliases=("output_path",),
        default_text="samples.png",
    )
    outdir: str | None = option(
        None, "also write each sample as a PNG here, and the sheet as all.png", "output", kind=path, unit="DIR"
    )
    info: bool = option(False, "print what the model's file says, and exit", "output", aliases=("info_only",))


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ModelOptions, GenerateOptions, PriorOptions, SeedOptions, DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(GenerateOptions)
    outfile = args.outfile or "samples.png"
    if args.info:
        others = [name for part in (GenerateOptions, PriorOptions) for name, _, _ in options_of(part)]
        check_effects(typed, [name for name in others if name != "info"], "--info")
    if args.vis_lat_space:
        check_effects(typed, ["nsamples", "prior", "temperature", "pixels", "grid_size", "seed"], "--vis_lat_space")
    from toolkit.pictures import images, sampling

    images.check_name(outfile)
    check_file(outfile)
    with beside(args.outfile):
        opened = open_model(typed)
        model, facts = opened.model, opened.facts
        if args.info:
            print_info(opened)
            return
        if args.vis_lat_space:
            made = sampling.latent_grid(model, facts, args.label)
        else:
            sampler = sampler_of(typed, opened)
            made = sampling.samples(model, facts, sampler, args.nsamples, args.label, args.grid_size)
        sheets = [Path(outfile)] if args.outfile or not args.outdir else []
        if args.outdir:
            sheets.append(write_each(made.pictures, Path(args.outdir)))
        what = "Latent grid" if args.vis_lat_space else f"Sheet of {counted(len(made.pictures), 'sample')}"
        for path in sheets:
            images.save(path, made.sheet())
            print(f"{what}: {path}")


def write_each(pictures, folder):
    """Write every sample as a file of its own; returns the name of the sheet beside them."""
    from toolkit.pictures.images import Writer

    with Writer() as writer:
        for i, picture in enumerate(pictures):
            writer.save(folder / f"img_{i:06d}.png", picture)
    print(f"{counted(len(pictures), 'sample')}: {folder / 'img_000000.png'}" + (", …" if len(pictures) > 1 else ""))
    return folder / "all.png"


def print_info(opened):
    from toolkit.formats.description import fact_rows, model_rows

    print(f"Model: {opened.path}")
    for title, words in model_rows(opened.model) + fact_rows(opened.facts):
        print(f"  {title}: {words}")


if __name__ == "__main__":
    main()
