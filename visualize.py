"""python visualize.py traversal --outfile traversal.png

Show what a model has learned.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError
from toolkit.files.targets import PAGE, PICTURE, check_ending
from toolkit.options import Kind, count, number, option, options_of, path, text, word
from toolkit.shell.command import beside, command
from toolkit.shell.flags import (
    DataOptions,
    DeviceOptions,
    ModelOptions,
    PlaceOptions,
    PriorOptions,
    SeedOptions,
    WriteOptions,
    check_targets,
)
from toolkit.shell.parser import check_effects, parse

# Kinds that are no scene of toolkit/pictures/scenes.py: what they show, and the options that have an effect on them.
OTHERS = {
    "curves": ("loss, KL and speed over the epochs of some runs", ("logs",)),
    "training": ("a film of the samples of a run, epoch by epoch, as .gif", ("logs",)),
    "explorer": (
        "a page to play with the model, as one HTML file",
        ("nsamples", "half"),
    ),
    "report": (
        "all of it, with the metrics, in one HTML file",
        ("image", "label", "prior", "temperature", "importance_samples", "seed"),
    ),
}
OF_RUNS = ("curves", "training")  # the kinds that show runs, not a model
PAGES = ("explorer", "report")  # the kinds that are pages


IMAGE = Kind(lambda text: int(text) if text.isdecimal() else path.read(text), (int, str))  # a number, or a file


def kinds() -> dict[str, tuple[str, tuple[str, ...]]]:
    """What KIND can be: what it shows, and its options."""
    from toolkit.pictures.scenes import SCENES

    return {name: (scene.about, scene.options) for name, scene in SCENES.items()} | OTHERS


@dataclass(frozen=True)
class VisualizeOptions:
    kind: str = option(..., "what to show", "pictures", kind=text, choices=kinds, unit="KIND", positional=True)
    outfile: str | None = option(
        None,
        "the picture, or the page; - is standard output",
        "output",
        kind=path,
        unit="FILE",
        default_text="KIND.png, training.gif, explorer.html, report.html",
    )
    image: int | str | None = option(
        None,
        "traversal: around this test image, by number, or this picture file; not the centre of the prior",
        "pictures",
        kind=IMAGE,
        unit="N|FILE",
    )
    images: tuple[int | str, ...] = option(
        (),
        "interpolate: from each of these to the next, test images by number or picture files",
        "pictures",
        kind=IMAGE,
        unit="N|FILE",
        several=True,
    )
    rows: int | None = option(
        None,
        "traversal: dimensions; interpolate: pairs; manifold: side",
        "pictures",
        kind=count,
        unit="N",
        default_text="16, 4, 20",
    )
    nsamples: int | None = option(
        None,
        "samples, or reconstructions; explorer: test images in the page",
        "pictures",
        kind=count,
        unit="N",
        default_text="128, 24, up to 1000",
    )
    label: str | None = option(
        None, "class-conditional models: this class, or all", "pictures", kind=word, unit="CLASS"
    )
    logs: tuple[str, ...] = option(
        (),
        "curves, training: folders of runs",
        "pictures",
        kind=path,
        unit="RUN",
        several=True,
        default_text="the model's",
    )
    importance_samples: int = option(
        50, "report: samples per image for log p(x)", "sampling", kind=number(int, 0, 10**7), unit="K"
    )
    half: bool = option(
        False, "explorer: weights in half precision, for half the size; prints what that changes", "output"
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    shared = (DataOptions, PlaceOptions, PriorOptions, SeedOptions, WriteOptions, DeviceOptions)
    return VisualizeOptions, ModelOptions, *shared


def document() -> str:
    """The help of this command, with the table of kinds."""
    width = max(map(len, kinds()))
    lines = [f"  {name:{width}s}  {about}" for name, (about, _) in kinds().items()]
    return f"{__doc__.rstrip()} KIND is one of\n\n" + "\n".join(lines)


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(document(), argv, *options())
    args = typed.of(VisualizeOptions)
    check_options(typed, args)
    from toolkit.files.writing import write
    from toolkit.pictures import images
    from toolkit.pictures.curves import curves
    from toolkit.pictures.epochs import film
    from toolkit.pictures.sampling import ALL, Sampler
    from toolkit.pictures.scenes import SCENES, Subject
    from toolkit.shell.data import load_pictures
    from toolkit.shell.opening import find_model, open_model, prior_of

    model, prior = typed.of(ModelOptions), typed.of(PriorOptions)
    endings = (".html", ".htm") if args.kind in PAGES else (".gif",) if args.kind == "training" else images.ENDINGS
    outfile = args.outfile or args.kind + endings[0]
    given = [name for name in (args.image, *args.images) if isinstance(name, str)]
    check_targets(typed.of(WriteOptions), PAGE if args.kind in PAGES else PICTURE, [outfile], model.model, *given)
    check_ending(outfile, endings)
    with beside(args.outfile):
        if args.kind in OF_RUNS:
            runs = args.logs or own_run(find_model(model.model))
            if args.kind == "curves":
                images.save(outfile, curves(runs))
            elif len(runs) == 1:
                images.save_animation(outfile, film(runs[0]))
            else:
                raise UserError(f"a film shows one run, not {len(runs)} — name its folder with --logs")
        else:
            opened = open_model(model, typed.of(DeviceOptions))
            load = lambda split: load_data(typed, opened, split)  # noqa: E731
            label = None if args.label == ALL else args.label
            open_files = lambda files: load_pictures(opened.checkpoint, files, label)  # noqa: E731
            drawn_from, seed = prior_of(opened, prior.prior), typed.of(SeedOptions).seed
            sampler = Sampler(drawn_from, prior.temperature, seed, noisy=prior.pixels == "sample")
            subject = Subject(opened.checkpoint, load, args.label, sampler, open_files)
            if args.kind in PAGES:
                page = {"explorer": explorer, "report": report}[args.kind](typed, args, opened, subject)
                write(outfile, page.encode(errors="replace"))
            elif images.ending_of(outfile) == ".gif" and SCENES[args.kind].frames:
                images.save_animation(outfile, SCENES[args.kind].frames(subject, args))
            else:
                images.save(outfile, SCENES[args.kind].make(subject, args))
        print(f"{args.kind.capitalize()}: {outfile}")


def load_data(typed, opened, split):
    """A split of the data set that the flags name."""
    from toolkit.shell.data import dataset_of, load_for

    data = typed.of(DataOptions)
    return load_for(opened.checkpoint, dataset_of(opened, data.dataset), split, typed.of(PlaceOptions), data.limit)


def check_options(typed, args):
    """Stop where a flag has no effect on what is to be shown."""
    from toolkit.pictures.scenes import SCENES

    effective = {"kind", "outfile", *kinds()[args.kind][1]}
    own = [name for declared in (VisualizeOptions, PriorOptions, SeedOptions) for name, _, _ in options_of(declared)]
    without_data = args.kind in OF_RUNS or (args.kind in SCENES and not SCENES[args.kind].needs_data)
    data = [name for declared in (DataOptions, PlaceOptions) for name, _, _ in options_of(declared)]
    check_effects(typed, [name for name in [*own, *(data if without_data else ())] if name not in effective], args.kind)
    if args.images:
        check_effects(typed, ["rows"], "--images")
    chosen = {"traversal": [args.image], "interpolate": args.images}.get(args.kind)
    if chosen and all(isinstance(which, str) for which in chosen):
        check_effects(typed, data, "pictures named by their files")


def own_run(model_file):
    """The folder of the run that made a model, if it lies beside it."""
    folder = model_file.with_suffix("")
    return [folder] if folder.is_dir() and folder != model_file else []


def explorer(typed, args, opened, subject):
    """The page with the model in it; without data at hand it has no test images."""
    from toolkit import datasets
    from toolkit.pictures import explorer
    from toolkit.shell.data import dataset_of

    dataset = datasets.public_name(opened.checkpoint.dataset or "mnist")
    try:
        dataset = datasets.public_name(dataset_of(opened, typed.of(DataOptions).dataset))
        subject.test = subject.load("test")
    except UserError as error:
        if any(name in typed for name in ("dataset", "data_dir", "limit")):
            raise
        print(f"Warning: the page has no test images and no map: {error}", file=sys.stderr)
        subject.load = None
    made = explorer.make(Path(opened.name).stem, subject, dataset, args.nsamples, args.half)
    size = f"{len(made.page.encode(errors='replace')) / 1e6:.2f} MB"
    print(f"Size: {size}{', in half precision: ' + made.rounding if made.rounding else ''}")
    return made.page


def report(typed, args, opened, subject):
    """The page with all pictures and metrics."""
    from toolkit import datasets
    from toolkit.files.progress import Bars
    from toolkit.metrics.measure import measure
    from toolkit.model.inference import CHUNK
    from toolkit.pictures import report
    from toolkit.shell.data import dataset_of

    if args.image is not None:
        subject.image(args.image)  # an impossible one stops here, not at the end
    dataset = datasets.public_name(dataset_of(opened, typed.of(DataOptions).dataset))
    test, train = subject.test, None if subject.test.labels is None else subject.load("train")
    with Bars() as watch:
        seed, model = subject.sampler.seed, opened.model
        metrics = measure(model, test, train, args.importance_samples, seed, CHUNK, watch)
    pictures = report.pictures(subject, args.image, own_run(opened.path))
    about = report.description(subject, dataset, opened.device)
    parts = [*report.playground(Path(opened.name).stem, subject, dataset), report.run(subject)]
    return report.make(opened.name, about, metrics, pictures, parts)


if __name__ == "__main__":
    main()
