"""python train.py --latent_dims 8

Train a variational autoencoder and write it to OUTDIR. Every epoch is scored on the test split, which never chooses
anything, and leaves two sheets of pictures, so that the folder shows learning as it happens.
"""

from contextlib import closing

import cli


def parse(argv):
    parser = cli.Parser(__doc__)
    cli.add_device_flags(parser)
    cli.add_data_flags(parser, default="mnist")
    add = parser.add_argument
    add("--seed", type=cli.seed, default=0, metavar="N", help="the number that all chance comes from")
    add("--batchsize", "--batch_size", type=cli.count, default=128, metavar="N", help="images in a step")
    add("--max_filters", type=cli.count, default=64, metavar="N", help="filters of the widest convolution")
    add("--epochs", "--num_epochs", type=cli.count, default=50, metavar="N", help="passes over the training images")
    add("--lr", "--learning_rate", type=cli.rate, default=0.001, metavar="X", help="learning rate of AdamW")
    add("--latent_dims", type=cli.count, default=8, metavar="N", help="numbers in the code of an image")
    add("--image_size", type=cli.count, default=64, metavar="N", help="side in pixels, divisible by 8")
    add("--channels", type=int, choices=(1, 3), help="1: grey, 3: coloured (default: as the data set is)")
    add(
        "--binarize",
        choices=("none", "threshold", "dynamic"),
        default="none",
        help="make pixels 0 or 1: bytes above 128, or by lot, anew each time an image is learned from",
    )
    add("--outdir", "--save_dir", type=cli.name, default="models", metavar="DIR", help="folder for all files")
    add("--resume", action="store_true", help="go on with the run in OUTDIR where it stopped")
    add("--overwrite", action="store_true", help="start afresh where an unfinished run lies")
    add("--keep_best", action="store_true", help="hold out 1/12 of the training images and keep the epoch best on them")
    return parser.parse(argv)


# What the state of a run remembers.
OPTIONS = (
    *("dataset", "limit", "image_size", "channels", "binarize", "seed", "batchsize", "max_filters", "latent_dims"),
    *("epochs", "lr", "keep_best"),
)


@cli.command
def main(argv=None):
    args = parse(argv)
    import device

    device_name = device.start(args.cpu)
    compiled = device.compile(args.compile)
    import datasets
    import training

    options = {name: getattr(args, name) for name in OPTIONS}
    training.model_config(options)  # complains before any data is fetched, as does the next line
    datasets.check_name(args.dataset)
    path = training.model_file(args.outdir, options)
    stored = training.stored_run(path) if args.resume else None
    if stored:
        options = training.stored_options(options, args.typed, stored[-1])
    elif not args.resume and not args.overwrite:
        training.check_unfinished(path)
    args.limit = options["limit"]
    train, test = (
        cli.load_split(args, options["dataset"], split, options["image_size"], options["channels"])
        for split in ("train", "test")
    )
    run = training.Run(options, path, train, test, stored)
    with closing(run):
        print_options(run, device_name, compiled)
        if args.resume:
            fresh = f"No run to resume in {run.folder}: starting afresh"
            print(f"Resuming after epoch {run.epoch}" if stored else fresh)
            if run.epoch >= options["epochs"]:
                print(f"All {run.epoch} epochs are done, nothing left to do: --epochs asks for more")
                return
        try:
            follow(run, compiled)
        except KeyboardInterrupt:
            at = f"in epoch {run.epoch + 1} of {options['epochs']}"
            said = f"interrupted {at} — the same command with --resume repeats it and goes on"
            raise KeyboardInterrupt(said) from None
        print_end(run)


def print_options(run, device_name, compiled):
    options, config = run.options, run.model.config
    print("Options:")
    for name, value in (
        ("Device", device_name),
        ("Compiled", compiled),
        (
            "Data set",
            f"{options['dataset']}, {counted(run.learned, run.train)} training "
            f"and {counted(run.test.images, run.test)} test images",
        ),
        ("Image size", f"{config.image_size}×{config.image_size}, {config.channels} channel(s)"),
        ("Binarize", config.binarize),
        ("Seed", options["seed"]),
        ("Batch size", run.batch_size),
        ("Max number of filters", options["max_filters"]),
        ("Number of epochs", options["epochs"]),
        ("Learning rate", options["lr"]),
        ("Number of latent dimensions", options["latent_dims"]),
        ("Output", run.path),
    ):
        print(f"  {name}: {value}")
    print(f"Number of trainable params: {run.model.parameter_count() / 1e6:.4f} M")


def counted(images, split):
    """How many images, and of how many if not all."""
    return f"{len(images)}" if len(images) == split.total else f"{len(images)} of {split.total}"


def follow(run, compiled):
    """Print a line for every epoch, and on a terminal a bar while it lasts."""
    from progress import bar

    first = run.epoch + 1
    while run.epoch < run.options["epochs"]:
        with bar(len(run.learned), f"Epoch {run.epoch + 1:4d}") as shown:

            def watch(images, loss, shown=shown):
                shown.set_postfix_str(f"loss {loss:.2f}", refresh=False)
                shown.update(images)

            entry = run.next_epoch(watch)
        if compiled == "yes" and entry["epoch"] == first:
            print(f"Compiled with the first step, in {entry['first_step_seconds']:.1f} s (not in the throughput)")
        print_epoch(entry)


def print_epoch(entry):
    held_out = f" | Held out {entry['held_out']['loss']:7.2f}" if "held_out" in entry else ""
    print(
        f"Epoch {entry['epoch']:4d} | Loss {entry['loss']:7.2f} | Recon {entry['reconstruction']:7.2f} | "
        f"KL {entry['kl']:6.2f}{held_out} | Test {entry['test']['loss']:7.2f} | "
        f"Throughput {entry['images_per_second']:8.2f} im/s | Time {entry['seconds']:6.1f} (s)"
    )


def print_end(run):
    if not run.log:
        return
    loss = run.log[-1]["loss"]
    print(f"Model: {run.path}")
    print(f"Sheets, log and state: {run.folder}{'/'}")
    print(
        f"Losses are means per image. The original MLX example prints sums over a batch of {run.batch_size}: "
        f"{loss:.2f} here is {loss * run.batch_size:.0f} there."
    )


if __name__ == "__main__":
    main()
