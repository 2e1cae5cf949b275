"""python reconstruct.py --rec_testdata

Reconstruct a split of the data set, or your own pictures (--images), from the
means of the latent vectors. Writes each image beside its reconstruction to
OUTDIR/DATASET_SPLIT/DDDD_latent_dims/, numbered by position in the split, or to
OUTDIR/pictures/DDDD_latent_dims/ under its own name; the first ones also as
overview.png. sources.csv says what each file shows.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.files.targets import LIST, LIST_HEAD, NEW, PICTURE
from toolkit.files.writing import write
from toolkit.options import option, path, word
from toolkit.shell.command import command
from toolkit.shell.flags import (
    DataOptions,
    DeviceOptions,
    ModelOptions,
    PlaceOptions,
    WriteOptions,
    check_effects,
    check_targets,
)
from toolkit.shell.parser import parse
from toolkit.wording import counted, csv_text, file_names

SHOWN = 64  # pairs in the overview


@dataclass(frozen=True)
class ReconstructOptions:
    rec_testdata: bool = option(False, "reconstruct the test split instead of the training split", "data")
    images: tuple[str, ...] = option(
        (),
        "reconstruct these picture files instead, and folders of them",
        "data",
        kind=path,
        unit="FILE",
        several=True,
    )
    label: str | None = option(
        None,
        "class-conditional models, with --images: the class of the pictures",
        "data",
        kind=word,
        unit="CLASS",
        default_text="their sub-folder",
    )
    outdir: str = option("reconstructions", "output folder", "output", kind=path, unit="DIR")


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ModelOptions, DataOptions, ReconstructOptions, PlaceOptions, WriteOptions, DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(ReconstructOptions)
    if args.images:
        check_effects(typed, ["rec_testdata", "dataset", "limit", "data_dir", "cache_dir"], "--images")
    else:
        check_effects(typed, ["label"], "a split of a data set")
    from toolkit import datasets
    from toolkit.files.progress import bar
    from toolkit.metrics.similarity import psnr
    from toolkit.model import inference
    from toolkit.pictures import images
    from toolkit.shell.data import dataset_of, load_for, load_pictures
    from toolkit.shell.opening import open_model

    model, data, write_options = typed.of(ModelOptions), typed.of(DataOptions), typed.of(WriteOptions)
    opened = open_model(model, typed.of(DeviceOptions))
    if args.images:
        originals, place = load_pictures(opened.checkpoint, args.images, args.label), "pictures"
        names, what = file_names(originals.names, ["overview.png"]), counted(len(originals.images), "picture")
    else:
        split = "test" if args.rec_testdata else "train"
        dataset = dataset_of(opened, data.dataset)
        originals = load_for(opened.checkpoint, dataset, split, typed.of(PlaceOptions), data.limit)
        place = f"{datasets.file_name(dataset)}_{split}"
        names, what = [f"img_{i:08d}.png" for i in range(len(originals.images))], f"{split} split"
    folder = Path(args.outdir) / place / f"{opened.model.config.latent_dims:04d}_latent_dims"
    for kind, targets in (
        (NEW if args.images else PICTURE, names),
        (PICTURE, ["overview.png"]),
        (LIST, ["sources.csv"]),
    ):
        check_targets(write_options, kind, [folder / name for name in targets], model.model, *args.images)
    print(f"Device: {opened.device}")

    overview, squared_error, number = [], 0.0, 0
    with images.Writer() as writer, bar(len(originals.images), "Reconstructing") as shown:
        for x, y in inference.reconstruct(opened.model, originals):
            squared_error += float(((x - y) ** 2).mean(axis=(1, 2, 3)).sum())
            pairs = images.pairs(x, y)
            overview.extend(pairs[: SHOWN - len(overview)])
            for pair in pairs:
                writer.save(folder / names[number], pair)
                number += 1
            shown.update(len(pairs))
    images.save(folder / "overview.png", images.sheet(overview, columns=8))
    sources = csv_text(LIST_HEAD.split(","), zip(names, originals.names, strict=True))
    write(folder / "sources.csv", sources.encode())

    error = squared_error / number
    print(f"{counted(number, 'pair')}: {folder / names[0]}" + (", …" if number > 1 else ""))
    print(f"Overview of the first {len(overview)}: {folder / 'overview.png'}")
    print(f"Mean squared error {error:.6f} per pixel of [0, 1] | PSNR {psnr(error):.2f} dB ({what})")


if __name__ == "__main__":
    main()
