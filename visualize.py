"""python visualize.py traversal --outfile traversal.png

Show what a model has learned.
"""

from dataclasses import dataclass
from functools import cache

from toolkit.files.targets import PAGE, PICTURE, check_ending
from toolkit.options import Row, option, options_of, path, text, word
from toolkit.shell import opening
from toolkit.shell.command import beside, command
from toolkit.shell.parser import parse


@dataclass(frozen=True)
class LabelOptions:
    label: str | None = option(None, "class of a class-conditional model, or all", "pictures", kind=word, unit="CLASS")


@dataclass(frozen=True)
class RunOptions:
    logs: tuple[str, ...] = option(
        (), "folders of runs", "pictures", kind=path, unit="RUN", several=True, default_text="the model's"
    )


SHARED = {  # flags for what kinds need
    "data": (opening.PlaceOptions, opening.DataOptions),
    "label": (LabelOptions,),
    "sampler": (opening.SeedOptions, opening.PriorOptions),
    "runs": (RunOptions,),
}


@cache
def kinds() -> dict[str, Row]:
    from toolkit.pictures.kinds import table

    return table.kinds(SHARED)


@dataclass(frozen=True)
class VisualizeOptions:
    kind: str = option(..., "what to show", "pictures", kind=text, rows=kinds, unit="KIND", positional=True)
    outfile: str | None = option(
        None,
        "picture or page; - is standard output",
        "output",
        kind=path,
        unit="FILE",
        default_text="KIND.png or .html",
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are the flags of all kinds."""
    return VisualizeOptions, opening.ModelOptions, opening.WriteOptions, opening.DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(VisualizeOptions)
    kind = kinds()[args.kind]
    chosen = typed.of(kind.Options)
    from toolkit.files.writing import write
    from toolkit.pictures import images

    draw, animate, write_page = (getattr(kind.file, name, None) for name in ("draw", "animate", "write_page"))
    endings = (".html", ".htm") if write_page else images.ENDINGS if draw else (".gif",)
    outfile = args.outfile or args.kind + endings[0]
    files = picture_files(typed, chosen, not write_page)
    opening.check_targets(typed, PAGE if write_page else PICTURE, [outfile], *files)
    check_ending(outfile, endings)
    with beside(args.outfile):
        if "runs" in kind.needs:
            subject = chosen.logs or own_run(opening.find_model(typed.of(opening.ModelOptions).model))
        else:
            subject = open_subject(typed)
        if write_page:
            write(outfile, write_page(subject, chosen).encode(errors="replace"))
        elif animate and (not draw or images.ending_of(outfile) == ".gif"):
            images.save(outfile, animate(subject, chosen))
        else:
            images.save(outfile, draw(subject, chosen))
        print(f"{args.kind.capitalize()}: {outfile}")


def picture_files(typed, chosen, alone):
    """The picture files that flags name; where they are shown `alone`, flags of the data have no effect."""
    named = getattr(chosen, "images", None) or [getattr(chosen, "image", None)]
    files = [which for which in named if isinstance(which, str)]
    if len(files) == len(named) and alone:
        data = [name for part in SHARED["data"] for name, _, _ in options_of(part)]
        opening.check_effects(typed, data, "pictures named by their files")
    return files


def open_subject(typed):
    """The model that flags name, and what loads its data and other pictures."""
    from toolkit.datasets import full_name, public_name
    from toolkit.pictures.sampling import ALL
    from toolkit.pictures.subject import Subject

    opened, label = opening.open_model(typed), typed.of(LabelOptions).label
    dataset = typed.of(opening.DataOptions).dataset
    return Subject(
        opened.checkpoint,
        lambda split: opening.load_for(typed, opened, split),
        label,
        opening.sampler_of(typed, opened),
        lambda files: opening.load_pictures(opened, files, None if label == ALL else label),
        name=opened.name,
        dataset=public_name(full_name(dataset)) if dataset else "",
        device=opened.device,
        runs=own_run(opened.path),
    )


def own_run(model_file):
    """The folder of the run that made a model, if it lies beside it."""
    folder = model_file.with_suffix("")
    return [folder] if folder.is_dir() and folder != model_file else []


if __name__ == "__main__":
    main()
