"""python train.py --latent_dims 8

Train a variational autoencoder and write it to OUTDIR. Every epoch is scored on the test split, which never chooses
anything, and leaves two sheets of pictures, so that the folder shows learning as it happens.
"""

import sys
from contextlib import closing
from pathlib import Path

import cli


def parse(argv):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("run_name", nargs="?", metavar="RUN_NAME", type=cli.run_name, help="sub-folder of OUTDIR for this run")
    cli.add_device_flags(parser)
    cli.add_data_flags(parser, default="mnist")
    add("--seed", type=cli.seed, default=0, metavar="N", help="the number that all chance comes from")
    add("--batchsize", "--batch_size", type=cli.count, default=128, metavar="N", help="images in a step")
    add("--epochs", "--num_epochs", type=cli.count, default=50, metavar="N", help="passes over the training images")
    add("--outdir", "--save_dir", "--runs_dir", type=cli.name, default="models", metavar="DIR", help="for all files")
    add("--resume", "--resume_if_exists", action="store_true", help="go on with the run in OUTDIR where it stopped")
    add("--reset_optimizer", action="store_true", help="with --resume: forget the optimizer's state")
    add("--overwrite", action="store_true", help="start afresh where an unfinished run lies")
    add("--keep_best", action="store_true", help="hold out 1/12 of the training images and keep the epoch best on them")
    add("--tensorboard", type=cli.name, metavar="DIR", help="write figures and sheets for TensorBoard, too")

    add = parser.add_argument_group("model").add_argument
    add("--latent_dims", "--hidden_dim", type=cli.count, default=8, metavar="N", help="numbers in the code of an image")
    add("--max_filters", type=cli.count, metavar="N", help="filters of the widest layer (default: 64; mlp: 512 units)")
    add("--image_size", type=cli.count, default=64, metavar="N", help="side in pixels, divisible by 8 but for mlp")
    add("--channels", type=int, choices=(1, 3), help="1: grey, 3: coloured (default: as the data set is)")
    add("--arch", choices=("conv", "mlp"), default="conv", help="convolutions, or fully connected layers")
    add("--decoder", choices=("upsample", "transpose"), help="convolutions that enlarge (default: upsample)")
    add("--conditional", action="store_true", help="tell encoder and decoder the class of an image")
    add(
        "--binarize",
        choices=("none", "threshold", "dynamic"),
        default="none",
        help="make pixels 0 or 1: bytes above 128, or by lot, anew each time an image is learned from",
    )
    add("--init", "--initial_checkpoint_path", type=cli.name, metavar="FILE", help="begin with the weights of a model")

    add = parser.add_argument_group("objective").add_argument
    add(
        "--likelihood",
        "--likelihood_type",
        choices=("mse", "bce"),
        default="mse",
        help="squared error, or binary cross-entropy",
    )
    add("--beta", type=cli.weight, default=1.0, metavar="X", help="weight of KL")
    add("--beta_start", type=cli.weight, default=0.001, metavar="X", help="its weight where --beta_warmup begins")
    add(
        "--beta_warmup",
        "--beta_annealing_period",
        type=cli.weight,
        default=0,
        metavar="EPOCHS",
        help="let the weight grow linearly to --beta for so long",
    )
    add("--free_bits", type=cli.weight, default=0, metavar="NATS", help="KL of a dimension that costs nothing")
    add("--lr", "--learning_rate", type=cli.rate, default=0.001, metavar="X", help="learning rate of AdamW")
    add(
        "--lr_schedule",
        choices=("constant", "cosine", "plateau"),
        default="constant",
        help="cosine: down to 0; plateau: halved when images held out get no better for 15 epochs",
    )
    add("--weight_decay", type=cli.weight, default=0.01, metavar="X", help="weight decay of AdamW")

    add = parser.add_argument_group("flags of earlier systems").add_argument
    add("--beta_max", type=cli.weight, metavar="X", help="the weight of KL; --beta is then where it begins")
    add("--type_of_embedding", choices=("none", "cat", "one_hot"), help="all but none mean --conditional")
    add("--detect_posterior_collapse", action="store_true", help="is always done")
    args = parser.parse(argv)
    complete(args)
    return args


def complete(args):
    """Fill in what depends on other flags, and stop where they contradict each other."""
    if args.arch == "mlp":
        if args.decoder:
            raise cli.UserError(f"--arch mlp has a decoder of its own — leave --decoder {args.decoder} out")
    elif args.decoder == "transpose":
        args.arch = "transpose"
    if "decoder" in args.typed:
        args.typed.add("arch")
    if args.max_filters is None:
        args.max_filters = 512 if args.arch == "mlp" else 64
    if args.beta_max is not None:
        if "beta" in args.typed:
            args.beta_start, args.typed = args.beta, args.typed | {"beta_start"}
        args.beta, args.typed = args.beta_max, args.typed | {"beta"}
    if args.type_of_embedding is not None:
        args.conditional, args.typed = args.type_of_embedding != "none", args.typed | {"conditional"}
    if "beta_start" in args.typed and not args.beta_warmup:
        raise cli.UserError("--beta_start needs --beta_warmup EPOCHS — or give the weight of KL as --beta")


# What the state of a run remembers.
OPTIONS = (
    *("dataset", "limit", "image_size", "channels", "binarize", "seed", "batchsize", "max_filters", "latent_dims"),
    *("arch", "conditional", "likelihood", "beta", "beta_start", "beta_warmup", "free_bits"),
    *("epochs", "lr", "lr_schedule", "weight_decay", "keep_best"),
)


@cli.command
def main(argv=None):
    args = parse(argv)
    import device

    device_name = device.start(args.cpu)
    compiled = device.compile(args.compile)
    import checkpoint
    import datasets
    import tensorboard
    import training

    args.dataset = datasets.full_name(args.dataset)
    options = {name: getattr(args, name) for name in OPTIONS}
    training.model_config(options)  # complains before any data is fetched, as do the next lines
    if args.run_name in datasets.NAMES:
        raise cli.UserError(f"{args.run_name} is a data set, not a name for a run — say --dataset {args.run_name}")
    path = training.model_file(Path(args.outdir, args.run_name or ""), options)
    stored = training.stored_run(path) if args.resume else None
    if stored:
        options = training.stored_options(options, args.typed, stored[-1])
        if args.reset_optimizer:
            stored = (stored[0], None, stored[2])
    elif not args.resume and not args.overwrite:
        training.check_replaceable(path, args.dataset)
    weights = checkpoint.load_model(args.init)[0] if args.init else None
    board = tensorboard.Board(args.tensorboard, stored[-1]["epoch"] if stored else 0) if args.tensorboard else None
    args.limit = options["limit"]
    train, test = (
        cli.load_split(args, options["dataset"], split, options["image_size"], options["channels"])
        for split in ("train", "test")
    )
    run = training.Run(options, path, train, test, stored, weights)
    with closing(run):
        print_options(run, device_name, compiled)
        if args.resume:
            fresh = f"No run to resume in {run.folder}: starting afresh"
            print(f"Resuming after epoch {run.epoch}" if stored else fresh)
            if run.epoch >= options["epochs"]:
                print(f"All {run.epoch} epochs are done, nothing left to do: --epochs asks for more")
                return
        try:
            follow(run, compiled, board)
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
        ("Architecture", architecture(config)),
        ("Objective", objective(options)),
        ("Seed", options["seed"]),
        ("Batch size", run.batch_size),
        ("Max number of filters", options["max_filters"]),
        ("Number of epochs", options["epochs"]),
        ("Learning rate", f"{options['lr']}, {options['lr_schedule']}"),
        ("Number of latent dimensions", options["latent_dims"]),
        ("Output", run.path),
    ):
        print(f"  {name}: {value}")
    print(f"Number of trainable params: {run.model.parameter_count() / 1e6:.4f} M")


def architecture(config):
    """Words for what the encoder and the decoder are made of."""
    kinds = {
        "conv": "convolutions, upsampling decoder",
        "transpose": "convolutions, transposed in the decoder",
        "mlp": "fully connected",
    }
    return kinds[config.arch] + (f", conditional on {config.classes} classes" if config.classes else "")


def objective(options):
    """The objective as a formula."""
    likelihood = {"mse": "squared error", "bce": "binary cross-entropy"}[options["likelihood"]]
    words = f"{likelihood} + {options['beta']:g} KL"
    if options["beta_warmup"]:
        words += f" (from {options['beta_start']:g} within {options['beta_warmup']:g} epochs)"
    if options["free_bits"]:
        words += f", {options['free_bits']:g} nats of each dimension free"
    return words


def counted(images, split):
    """How many images, and of how many if not all."""
    return f"{len(images)}" if len(images) == split.total else f"{len(images)} of {split.total}"


def follow(run, compiled, board):
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
        if board:
            board.record(entry, run.folder)
        if entry["collapsed"]:
            print(f"Warning: {cli.COLLAPSED}; try --beta_warmup, --free_bits or a smaller --beta", file=sys.stderr)


def print_epoch(entry):
    beta = f" | β {entry['beta']:.3f}" if entry["beta"] != 1 else ""
    held_out = f" | Held out {entry['held_out']['loss']:7.2f}" if "held_out" in entry else ""
    print(
        f"Epoch {entry['epoch']:4d} | Loss {entry['loss']:7.2f} | Recon {entry['reconstruction']:7.2f} | "
        f"KL {entry['kl']:6.2f}{beta}{held_out} | Test {entry['test']['loss']:7.2f} | "
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
