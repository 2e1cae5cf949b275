"""python generate.py --model pretrained/vae_mnist_filters_0064_dims_0008.npz --outfile samples.png

Draw random codes and let the decoder make pictures of them. The model's file is enough: it says all the rest.
"""

from pathlib import Path

import cli

SQUARE = 16  # images along a side of the latent square


def parse(argv):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    add = parser.add_argument
    add("--nimg_channels", type=cli.count, metavar="N", help="image channels: checked against the model's file")
    add("--outfile", "--output_path", type=cli.name, default="samples.png", metavar="FILE", help="the sheet of samples")
    add(
        "--outdir",
        type=cli.name,
        metavar="DIR",
        help="instead: each sample as a PNG here, and the sheet as all.png",
    )
    add("--nsamples", "--num_samples", type=cli.count, default=128, metavar="N", help="how many samples")
    add("--label", type=cli.name, metavar="CLASS", help="class-conditional models: this class only, or all: a row each")
    add("--grid_size", type=cli.count, metavar="N", help="samples in a row (default: what fills the sheet best)")
    add("--seed", type=cli.seed, default=0, metavar="N", help="the number that all chance comes from")
    add("--vis_lat_space", action="store_true", help="for 2-dim models: the square [-2, 2]² of codes, 16×16 images")
    add("--info", "--info_only", action="store_true", help="print what the model's file says of itself, and stop")
    cli.add_device_flags(parser)
    return parser.parse(argv)


@cli.command
def main(argv=None):
    args = parse(argv)
    import images

    images.check_name(args.outfile)
    model, facts, _ = cli.open_model(args)
    if args.info:
        print_info(args.model, model, facts)
        return
    import inference

    if args.vis_lat_space:
        codes, columns = inference.latent_square(model, SQUARE), SQUARE
        labels = inference.labels(model, facts, args.label or ("0" if model.config.classes else None), len(codes))
    elif args.label == "all" and model.config.classes:
        columns = args.grid_size or max(1, args.nsamples // model.config.classes)
        images.check_sheet(columns * model.config.classes, model.config.image_size, columns)
        codes, labels = inference.one_row_a_class(model, columns, args.seed)
    else:
        columns = images.check_sheet(args.nsamples, model.config.image_size, args.grid_size)
        codes = inference.prior_codes(model, args.nsamples, args.seed)
        labels = inference.labels(model, facts, args.label, args.nsamples)
    samples = images.to_bytes(inference.decode(model, codes, labels))

    sheets = [Path(args.outfile)] if "outfile" in args.typed or not args.outdir else []
    if args.outdir:
        folder = Path(args.outdir)
        with images.Writer() as writer:
            for i, sample in enumerate(samples):
                writer.save(folder / f"img_{i:06d}.png", sample)
        print(f"{len(samples)} samples: {folder / 'img_000000.png'} and so on")
        sheets.append(folder / "all.png")
    for path in sheets:
        images.save(path, images.sheet(samples, columns))
        print(f"Sheet of {len(samples)} samples: {path}")


def print_info(path, model, facts):
    config = model.config
    print(f"Model: {path}")
    print(f"  Data set: {facts.get('dataset', 'not said')}")
    print(f"  Number of latent dimensions: {config.latent_dims}")
    print(f"  Max number of filters: {config.max_filters}")
    if config.classes:
        print(f"  Classes: {', '.join(facts.get('classes', map(str, range(config.classes))))}")
    print(f"  Architecture: {config.arch}")
    print(f"  Likelihood: {config.likelihood}")
    print(f"  Images: {config.image_size}×{config.image_size}, {config.channels} channel(s)")
    print(f"  Number of trainable params: {model.parameter_count():,}")
    if "epoch" in facts:
        print(f"  Trained for {facts['epoch']} epoch(s)")
    for title, values in (("Options", facts.get("options", {})), ("Test figures per image", facts.get("test", {}))):
        said = [f"{name} {round(v, 4) if isinstance(v, float) else v}" for name, v in values.items() if v is not None]
        if said:
            print(f"  {title}: {', '.join(said)}")


if __name__ == "__main__":
    main()
