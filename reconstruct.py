"""python reconstruct.py --rec_testdata
python reconstruct.py --model cifar-10 --images cat.jpg dog.jpg

Reconstruct a split of the data set, or your own pictures (--images), from the
posterior mean. Each image and its reconstruction form one file in
OUTDIR/DATASET_SPLIT/DDDD_latent_dims/, numbered by position in the split, or in
OUTDIR/pictures/DDDD_latent_dims/ under its own name. overview.png shows the
first ones; sources.csv lists what each file shows.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.files.targets import LIST, LIST_HEAD, NEW, PICTURE
from toolkit.files.writing import write
from toolkit.options import directory, option, path, with_conditions
from toolkit.pictures.kinds import ScaleOptions
from toolkit.shell import flags
from toolkit.shell.command import command
from toolkit.shell.parser import parse
from toolkit.wording import counted, csv_text, file_names

SHOWN = 64  # pairs in the overview


@dataclass(frozen=True)
class ReconstructOptions:
    rec_testdata: bool = option(False, "the test split instead of training", "data", common=True, not_with=("images",))
    images: tuple[str, ...] = option((), "picture files and folders", "data", kind=path, several=True, common=True)
    outdir: str = option("reconstructions", "output folder", "output", kind=directory, common=True)


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    data = [with_conditions(part, not_with=("images",)) for part in (flags.DataOptions, flags.PlaceOptions)]
    output = ScaleOptions, flags.PictureOptions, flags.DeviceOptions
    return flags.ModelOptions, ReconstructOptions, flags.LabelOptions, *data, *output


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(ReconstructOptions)
    from toolkit import datasets
    from toolkit.files.progress import bar
    from toolkit.formats.description import title as title_of
    from toolkit.metrics.similarity import psnr
    from toolkit.model import inference
    from toolkit.pictures import images
    from toolkit.pictures.layout import PAIRS, framed
    from toolkit.shell.data import dataset_of, load_for, load_pictures
    from toolkit.shell.opening import open_model
    from toolkit.shell.origin import record

    model, data = typed.of(flags.ModelOptions), typed.of(flags.DataOptions)
    write_options, scale = typed.of(flags.PictureOptions), typed.of(ScaleOptions).scale
    opened = open_model(model, typed.of(flags.DeviceOptions))
    if args.images:
        originals, place = load_pictures(opened.checkpoint, args.images, typed.of(flags.LabelOptions).label), "pictures"
        names, what = file_names(originals.names, ["overview.png"]), counted(len(originals.images), "picture")
    else:
        split = "test" if args.rec_testdata else "train"
        dataset = dataset_of(opened, data.dataset)
        originals = load_for(opened.checkpoint, dataset, split, typed.of(flags.PlaceOptions), data.limit)
        place = f"{datasets.file_name(dataset)}_{split}"
        names, what = [f"img_{i:08d}.png" for i in range(len(originals.images))], f"{split} split"
    outdir = Path(args.outdir) / place / f"{opened.model.config.latent_dims:04d}_latent_dims"
    pairs_are = NEW if args.images else PICTURE
    for kind, targets in (pairs_are, names), (PICTURE, ["overview.png"]), (LIST, ["sources.csv"]):
        flags.check_targets(write_options, kind, [outdir / name for name in targets], model.model, *args.images)
    print(f"Device: {opened.device}")

    overview, squared_error, number = [], 0.0, 0
    title, caption = f"Reconstructions: {title_of(opened.checkpoint)}", PAIRS
    origin = record(typed, opened, title, caption)
    with images.Writer(origin) as writer, bar(len(originals.images), "Reconstructing") as shown:
        for x, y in inference.reconstruct(opened.model, originals):
            squared_error += float(((x - y) ** 2).mean(axis=(1, 2, 3)).sum())
            pairs = images.pairs(x, y)
            overview.extend(pairs[: SHOWN - len(overview)])
            for pair in pairs:
                writer.save(outdir / names[number], pair)
                number += 1
            shown.update(len(pairs))
    sheet = images.sheet(overview, SHOWN // 8, scale)
    images.save(outdir / "overview.png", sheet if scale == 1 else framed(sheet, title, caption), origin)
    sources = csv_text(LIST_HEAD.split(","), zip(names, originals.names, strict=True))
    write(outdir / "sources.csv", sources.encode())

    error = squared_error / number
    print(f"{counted(number, 'pair')}: {outdir / names[0]}" + (", …" if number > 1 else ""))
    print(f"Overview of the first {len(overview)}: {outdir / 'overview.png'}")
    print(f"Mean squared error {error:.6f} per pixel in [0, 1] | PSNR {psnr(error):.2f} dB ({what})")
    flags.show(write_options, outdir / "overview.png")


if __name__ == "__main__":
    main()
