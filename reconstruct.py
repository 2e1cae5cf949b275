"""python reconstruct.py --rec_testdata

Reconstruct a split of the data set from the means of its latent vectors. Writes
each image beside its reconstruction to OUTDIR/DATASET_SPLIT/DDDD_latent_dims/,
numbered by position in the split, and the first ones as overview.png.
"""

from dataclasses import dataclass
from pathlib import Path

from toolkit.options import option, path
from toolkit.shell.command import command
from toolkit.shell.opening import (
    DataOptions,
    DeviceOptions,
    ModelOptions,
    PlaceOptions,
    dataset_of,
    load_for,
    open_model,
)
from toolkit.shell.parser import parse
from toolkit.wording import counted

SHOWN = 64  # pairs in the overview


@dataclass(frozen=True)
class ReconstructOptions:
    rec_testdata: bool = option(False, "reconstruct the test split instead of the training split", "data")
    outdir: str = option("reconstructions", "output folder", "output", kind=path, unit="DIR")


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return ModelOptions, DataOptions, ReconstructOptions, PlaceOptions, DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(ReconstructOptions)
    opened = open_model(typed)
    from toolkit import datasets
    from toolkit.files.progress import bar
    from toolkit.metrics.similarity import psnr
    from toolkit.model import inference
    from toolkit.pictures import images

    split = "test" if args.rec_testdata else "train"
    originals = load_for(typed, opened, split)
    place = f"{datasets.file_name(dataset_of(typed, opened))}_{split}"
    folder = Path(args.outdir) / place / f"{opened.model.config.latent_dims:04d}_latent_dims"
    print(f"Device: {opened.device}")

    overview, squared_error, number = [], 0.0, 0
    with images.Writer() as writer, bar(len(originals.images), "Reconstructing") as shown:
        for x, y in inference.reconstruct(opened.model, originals):
            squared_error += float(((x - y) ** 2).mean(axis=(1, 2, 3)).sum())
            pairs = images.pairs(x, y)
            overview.extend(pairs[: SHOWN - len(overview)])
            for pair in pairs:
                writer.save(folder / f"img_{number:08d}.png", pair)
                number += 1
            shown.update(len(pairs))
    images.save(folder / "overview.png", images.sheet(overview, columns=8))

    error = squared_error / number
    print(f"{counted(number, 'pair')}: {folder / 'img_00000000.png'}" + (", …" if number > 1 else ""))
    print(f"Overview of the first {len(overview)}: {folder / 'overview.png'}")
    print(f"Mean squared error {error:.6f} per pixel of [0, 1] | PSNR {psnr(error):.2f} dB ({split} split)")


if __name__ == "__main__":
    main()
