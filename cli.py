"""What all commands share: how flags are read, their common types, and how a command ends.

Flags are spelled with underscores and work with hyphens too; those of the ancestors are aliases. A command is a
`main(argv=None)` under `@command`, which turns what can go wrong into one line and an exit status.
"""

import argparse
import difflib
import functools
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from errors import UserError

ROOT = Path(__file__).resolve().parent
COLLAPSED = "the codes say nothing of their images (posterior collapse: KL under 0.001)"
DEFAULT_MODEL = "pretrained/vae_mnist_filters_0064_dims_0008.npz"


def command(main):
    """Run a command; errors become one line and exit status 2, Ctrl-C 130, a closed pipe ends it quietly."""

    @functools.wraps(main)
    def run(argv=None):
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a stream may be closed
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        pressed = []

        def interrupt(*_):
            pressed.append(True)
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            main(argv)
        except BaseException as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if pressed:  # whatever an interrupted import or library made of it
                said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                leave(130, said or "interrupted — what is written stays, the same command starts over")
            status, message = explain(error)
            if status is None:
                raise
            leave(status, message)
        finally:
            signal.signal(signal.SIGINT, before)

    return run


def explain(error):
    """The exit status and the line for what ended a command; None where it is a bug."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, BrokenPipeError):  # the reader (`| head`) has left: so do we, without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, ""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 2, f"error: {where}{error.strerror or error} — check the name, the rights and the space left"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error)):
        return 2, "error: out of memory — try smaller numbers (batch size, image size, filters, samples)"
    return None, ""


def leave(status, message):
    """Print one line on stderr, if anything can still be printed there, and exit."""
    if message:
        with suppress(OSError):
            print(" ".join(message.splitlines()), file=sys.stderr)
    raise SystemExit(status) from None


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the default of every flag that has one."""

    def _get_help_string(self, action):
        has_one = not any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS))
        return f"{action.help} (default: %(default)s)" if has_one else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults, takes hyphens for underscores and fails in one line.

    The description is the docstring of a command: the line to type, and below it what that does.
    """

    def __init__(self, description):
        super().__init__(
            usage=argparse.SUPPRESS, description=description, formatter_class=HelpFormatter, allow_abbrev=False
        )

    def parse(self, argv=None):
        """Parse; the result's `typed` holds the names of the flags that the person typed."""
        argv = [underscored(word) for word in (sys.argv[1:] if argv is None else map(str, argv))]
        args, unknown = self.parse_known_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1) if len(unknown[0]) > 2 else []
            self.error(f"{unknown[0]} is not a flag" + (f" — did you mean {near[0]}?" if near else ""))
        flags = {word.split("=")[0] for word in argv}
        args.typed = {action.dest for action in self._actions if flags.intersection(action.option_strings)}
        return args

    def error(self, message):
        leave(2, f"error: {message}" + ("" if "—" in message else f" — see python {self.prog} -h"))


def underscored(word):
    """`--latent-dims=8` → `--latent_dims=8`; anything but a flag stays as it is."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def number(kind, least, below=math.inf, *, exclusive=False):
    """An argparse type: a number of that kind, at least `least` (or above it) and below `below`."""
    noun = "a whole number" if kind is int else "a number"
    bound = f"above {least}" if exclusive else f"of at least {least}"
    if below != math.inf:
        bound += f" and below {below}"

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (value > least if exclusive else value >= least) or not value < below:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise argparse.ArgumentTypeError(f"{shown!r} is not {noun} {bound}")
        return value

    return parse


def name(text):
    """An argparse type: the name of a file or folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name")
    return os.path.expanduser(text)


def run_name(text):
    """An argparse type: the name of a run, a folder inside another one."""
    if not text.strip() or text in (".", "..") or "/" in text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a plain name for a run")
    return text


count = number(int, 1)
rate = number(float, 0, exclusive=True)
weight = number(float, 0)
seed = number(int, 0, 2**32)


def add_device_flags(parser):
    parser.add_argument("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    parser.add_argument(
        "--compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="compile the model's functions; auto does it on a GPU, where it pays",
    )


def add_model_flags(parser):
    """--model, and flags of the ancestors that the model's file answers by itself."""
    add = parser.add_argument
    add(
        "--model",
        "--checkpoint_path",
        type=name,
        metavar="FILE",
        default=DEFAULT_MODEL,
        help="checkpoint: .npz, .safetensors, .pth",
    )
    add("--latent_dims", type=count, metavar="N", help="latent dimensions: checked against the model's file")
    add("--max_filters", type=count, metavar="N", help="widest layer: checked against the model's file")


def add_data_flags(parser, default=None):
    add = parser.add_argument
    help = "mnist, fashion-mnist, cifar-10, cifar-100, celeb-a, synthetic, or folder:PATH for your own pictures"
    add("--dataset", metavar="NAME", default=default, help=help + ("" if default else " (default: the model's)"))
    add(
        "--data_dir",
        type=name,
        metavar="DIR",
        default=os.environ.get("VAE_DATA_DIR") or "data",
        help="folder of the data sets, which missing files are downloaded to; VAE_DATA_DIR sets it too",
    )
    add("--cache_dir", type=name, metavar="DIR", help="folder for decoded pictures (default: DATA_DIR/cache)")
    add("--limit", type=count, metavar="N", help="first N images of a split only (default: all)")


def load_split(args, dataset, split, image_size, channels):
    """One split of a data set as the data flags ask for it; says so if files had to be left out."""
    import datasets

    loaded = datasets.load(dataset, split, args.data_dir, args.limit, image_size, channels, args.cache_dir)
    if count := len(loaded.skipped):
        file, why = loaded.skipped[0]
        print(f"Skipped {count} of {loaded.total} {split} pictures that cannot be read, such as {file!r}: {why}")
    return loaded


def data_of(args, facts):
    """The name of the data set to use with a model: the one asked for, or what the model was trained on."""
    import datasets

    return datasets.full_name(args.dataset or facts.get("dataset", "mnist"))


def load_for(args, model, facts, split):
    """One split as a model wants it: of its size and channels, with the labels that it knows."""
    import inference

    dataset, config = data_of(args, facts), model.config
    loaded = load_split(args, dataset, split, config.image_size, config.channels)
    inference.check_labels(model, facts, loaded, dataset)
    return loaded


def open_model(args):
    """Start the device and load the model of --model; returns it, the facts in its file, and the device's name."""
    import device

    device_name = device.start(args.cpu)
    device.compile(args.compile)
    import checkpoint

    model, facts = checkpoint.load_model(model_path(args))
    check_model_flags(args, model)
    if facts.get("collapsed"):
        print(f"Warning: in this model {COLLAPSED}", file=sys.stderr)
    return model, facts, device_name


def check_file(path):
    """Stop before the work where its result could not be written."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder — name a file")


def model_path(args):
    """Where the model of --model is; the shipped one is found wherever the command is called from."""
    path = Path(args.model)
    return path if "model" in args.typed or path.exists() else ROOT / path


def check_model_flags(args, model):
    """Stop where a typed flag contradicts what the model's file says."""
    config = model.config
    for flag, has in (
        ("latent_dims", config.latent_dims),
        ("max_filters", config.max_filters),
        ("nimg_channels", config.channels),
    ):
        asked = getattr(args, flag, None)
        if asked is not None and asked != has:
            raise UserError(f"--{flag} {asked} contradicts {args.model}, which has {has} — leave the flag out")
