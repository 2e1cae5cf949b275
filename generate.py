"""python generate.py --outfile samples.png
python generate.py --model conditional --label all

Sample new images from a model. With --codes, decode latent vectors instead:
those of encode.py, or vectors computed from them.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.files.targets import NEW, PICTURE, check_ending
from toolkit.options import count, directory, option, path, word
from toolkit.pictures.kinds import ScaleOptions
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import check_effects, parse
from toolkit.wording import counted, file_names

SHEET = "samples.png"


@dataclass(frozen=True)
class GenerateOptions:
    nsamples: int | None = option(
        None,
        "number of samples",
        "sampling",
        kind=count,
        common=True,
        aliases=("num_samples",),
        not_with=flags.REPLACING,
        default_text="128",
    )
    label: str | None = option(
        None, "class, or all: rows of each class", "sampling", kind=word, common=True, default_text="each in turn"
    )
    vis_lat_space: bool = option(False, "decode a 16×16 grid of [-2, 2]² (2-D models)", "sampling", not_with=("codes",))
    codes: str | None = option(None, "decode these latent vectors, .npz or .csv", "sampling", kind=path)
    names: tuple[str, ...] = option((), "only these names", "sampling", kind=word, several=True, only_with=("codes",))
    grid_size: int | None = option(
        None, "columns of the sheet", "output", kind=count, not_with=("vis_lat_space",), default_text="at most 12"
    )
    outfile: str | None = option(
        None, "the sheet; - is stdout", "output", kind=path, common=True, aliases=("output_path",), default_text=SHEET
    )
    outdir: str | None = option(
        None, "also save each sample to DIR, and the sheet as all.png", "output", kind=directory, common=True
    )
    info: bool = option(
        False, "print metadata and exit", "output", common=True, aliases=("info_only",), uses_only=("model", "general")
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    shared = flags.PriorOptions, flags.SeedOptions, ScaleOptions, flags.PictureOptions, flags.DeviceOptions
    return flags.ModelOptions, GenerateOptions, *shared


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(GenerateOptions)
    outfile = args.outfile or SHEET
    model, write = typed.of(flags.ModelOptions), typed.of(flags.PictureOptions)
    prior, seed = typed.of(flags.PriorOptions), typed.of(flags.SeedOptions).seed
    if args.codes and prior.pixels == "mean":
        check_effects(typed, ["seed"], "--codes and --pixels mean")
    from toolkit.formats import codes
    from toolkit.formats.description import checkpoint_rows, title
    from toolkit.pictures import images, sampling
    from toolkit.pictures.layout import framed
    from toolkit.shell.opening import open_model, prior_of
    from toolkit.shell.origin import record

    flags.check_targets(write, PICTURE, [outfile], model.model, args.codes)
    check_ending(outfile, images.ENDINGS)
    with beside(args.outfile):
        opened = open_model(model, typed.of(flags.DeviceOptions))
        if args.info:
            rows = [f"  {title}: {words}" for title, words in checkpoint_rows(opened.checkpoint)]
            return print("\n".join([f"Model: {opened.path}", *rows]))
        drawn_from = prior_of(opened, prior.prior)
        sampler = sampling.Sampler(drawn_from, prior.temperature, seed, noisy=prior.pixels == "sample")
        if args.codes:
            given = codes.load(args.codes, opened.model.config.latent_dims)
            given = given.chosen(args.names) if args.names else given
            made = sampling.decoded(opened.checkpoint, sampler, given, args.label, args.grid_size)
            caption = "given latents"
        elif args.vis_lat_space:
            made = sampling.latent_grid(opened.checkpoint, args.label)
            caption = "z0 from −2 to 2 rightwards, z1 from −2 to 2 upwards"
        else:
            made = sampling.samples(opened.checkpoint, sampler, args.nsamples, args.label, args.grid_size)
            caption = sampler.words
        what = "Latent grid" if args.vis_lat_space else f"Sheet of {number_of(made)}"
        label = None if args.label == sampling.ALL else args.label
        heading = f"{what.removeprefix('Sheet of ')}: {title(opened.checkpoint, label=label)}"
        origin, scale = record(typed, opened, heading, caption), typed.of(ScaleOptions).scale
        sheets = [Path(outfile)] if args.outfile or not args.outdir else []
        if args.outdir:
            sheets.append(write_each(images.Writer(origin), made, Path(args.outdir), write, model.model))
        for path in sheets:
            sheet = made.sheet(scale)
            images.save(path, sheet if scale == 1 else framed(sheet, heading, caption), origin)
            print(f"{what}: {path}")
        flags.show(write, sheets[0])


def write_each(writer, made, folder, write, model):
    """Write every picture as a file of its own, by name or number; returns the name for their sheet."""
    count, sheet = len(made.pictures), "all.png"
    names = [f"img_{i:06d}.png" for i in range(count)] if made.names is None else file_names(made.names, [sheet])
    flags.check_targets(write, PICTURE if made.names is None else NEW, [folder / name for name in names], model)
    flags.check_targets(write, PICTURE, [folder / sheet], model)
    with writer:
        for name, picture in zip(names, made.pictures, strict=True):
            writer.save(folder / name, picture)
    print(f"{number_of(made)}: {folder / names[0]}" + (", …" if count > 1 else ""))
    return folder / sheet


def number_of(made):
    """The number of images in words."""
    return counted(len(made.pictures), "sample" if made.names is None else "picture")


if __name__ == "__main__":
    main()
