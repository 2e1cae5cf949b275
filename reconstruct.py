"""python reconstruct.py --rec_testdata

Reconstruct a split of the data set from the mean codes of its images. Writes every image beside its reconstruction to
OUTDIR/DATASET_SPLIT/DDDD_latent_dims/img_NNNNNNNN.png, numbered as in the data set, and the first ones as overview.png.
"""

import math
from pathlib import Path

import cli

SHOWN = 64  # pairs in the overview


def parse(argv):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    add = parser.add_argument
    add("--rec_testdata", action="store_true", help="reconstruct the test split instead of the training split")
    add("--outdir", type=cli.name, default="reconstructions", metavar="DIR", help="folder for the pictures")
    cli.add_device_flags(parser)
    return parser.parse(argv)


@cli.command
def main(argv=None):
    args = parse(argv)
    model, facts, device_name = cli.open_model(args)
    import datasets
    import images
    import inference
    from progress import bar

    split = "test" if args.rec_testdata else "train"
    originals = cli.load_for(args, model, facts, split)
    count = len(originals.images)
    place = f"{datasets.file_name(cli.data_of(args, facts))}_{split}"
    folder = Path(args.outdir) / place / f"{model.config.latent_dims:04d}_latent_dims"
    print(f"Device: {device_name}")

    overview, squared_error, number = [], 0.0, 0
    with images.Writer() as writer, bar(count, "Reconstructing") as shown:
        for x, y in inference.reconstructions(model, originals):
            squared_error += float(((x - y) ** 2).mean(axis=(1, 2, 3)).sum())
            pairs = images.pairs(images.to_bytes(x), images.to_bytes(y))
            overview.extend(pairs[: SHOWN - len(overview)])
            for pair in pairs:
                writer.save(folder / f"img_{number:08d}.png", pair)
                number += 1
            shown.update(len(pairs))
    images.save(folder / "overview.png", images.sheet(overview, columns=8))

    error = squared_error / count
    psnr = 10 * math.log10(1 / error) if error else math.inf
    print(f"{count} pairs: {folder / 'img_00000000.png'} and so on")
    print(f"Sheet of the first {len(overview)}: {folder / 'overview.png'}")
    print(f"Mean squared error {error:.6f} per pixel of [0, 1] | PSNR {psnr:.2f} dB ({split} split)")


if __name__ == "__main__":
    main()
