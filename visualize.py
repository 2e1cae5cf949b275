"""python visualize.py traversal --outfile traversal.png
python visualize.py explorer --model conditional

Show what a model has learned.
"""

from dataclasses import dataclass
from functools import cache

from toolkit.errors import UserError
from toolkit.files.targets import PAGE, PICTURE, check_ending
from toolkit.options import Row, option, options_of, path, text, word
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import check_effects, parse


@dataclass(frozen=True)
class LabelOptions:
    label: str | None = option(None, "class of a class-conditional model, or all", "pictures", kind=word, unit="CLASS")


@dataclass(frozen=True)
class RunOptions:
    logs: tuple[str, ...] = option(
        (), "folders, models, or last", "pictures", kind=path, unit="RUN", several=True, default_text="the model's"
    )


SHARED = {  # flags for what the kinds load
    "data": (flags.PlaceOptions, flags.DataOptions),
    "label": (LabelOptions,),
    "sampler": (flags.SeedOptions, flags.PriorOptions),
    "runs": (RunOptions,),
    "models": (),
}


@cache
def kinds() -> dict[str, Row]:
    from toolkit.pictures.kinds import table

    return table.kinds(SHARED)


@dataclass(frozen=True)
class VisualizeOptions:
    kind: str = option(..., "what to show", "pictures", kind=text, rows=kinds, unit="KIND", positional=True)
    outfile: str | None = option(
        None, "picture or page; - is stdout", "output", kind=path, common=True, default_text="KIND.png or .html"
    )


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are the flags of all kinds."""
    return VisualizeOptions, flags.ModelOptions, flags.PictureOptions, flags.DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(VisualizeOptions)
    kind = kinds()[args.kind]
    chosen = typed.of(kind.Options)
    from toolkit.files.writing import write
    from toolkit.pictures import images
    from toolkit.pictures.kinds import curves
    from toolkit.pictures.layout import framed
    from toolkit.shell.opening import find_model, find_run, open_model
    from toolkit.shell.origin import record

    draw, animate, write_page = (getattr(kind.file, name, None) for name in ("draw", "animate", "write_page"))
    endings = images.ENDINGS if draw else (".gif",) if animate else ()
    endings = (*endings, ".html", ".htm") if write_page else endings
    outfile = args.outfile or args.kind + endings[0]
    if draw and write_page and not outfile.endswith((".html", ".htm")):
        write_page = None
    files = picture_files(typed, chosen, not write_page)
    model, write_options = typed.of(flags.ModelOptions), typed.of(flags.PictureOptions)
    flags.check_targets(
        write_options, PAGE if write_page else PICTURE, [outfile], model.model, *files, *getattr(chosen, "models", ())
    )
    check_ending(outfile, endings)
    with beside(args.outfile):
        alone = not {"runs", "models"} & set(kind.needs)
        opened = open_model(model, typed.of(flags.DeviceOptions)) if alone else None
        if opened:
            subject = subject_of(typed, opened)
        elif "models" in kind.needs:
            subject = models_of(typed, chosen)
        else:
            subject = [find_run(name) for name in chosen.logs] or own_runs(find_model(model.model))
        if write_page:
            write(outfile, write_page(subject, chosen).encode(errors="replace"))
        else:
            moving = animate and (not draw or images.ending_of(outfile) == ".gif")
            made, caption = (animate if moving else draw)(subject, chosen), kind.file.CAPTION
            if opened:
                caption = subject.caption(caption, getattr(chosen, "image", None))
            told = subject.title if opened else " and ".join(getattr(kind.file, "names", curves.names)(subject))
            title = f"{kind.file.TITLE}: {told}"
            if moving:
                made = made._replace(draw=lambda i, draw=made.draw: framed(draw(i), title, caption))
            elif args.kind != "samples" or chosen.scale != 1:
                made = framed(made, title, caption)
            images.save(outfile, made, record(typed, opened, title, caption))
        print(f"{args.kind.capitalize()}: {outfile}")
        flags.show(write_options, outfile)


def picture_files(typed, chosen, alone):
    """The picture files given by flags; if only they are shown, data flags have no effect."""
    named = getattr(chosen, "images", None) or [getattr(chosen, "image", None)]
    files = [which for which in named if isinstance(which, str)]
    if len(files) == len(named) and alone:
        data = [name for part in SHARED["data"] for name, _, _ in options_of(part)]
        check_effects(typed, data, "picture files")
    return files


def models_of(typed, chosen):
    """The models that are named beside each other."""
    from toolkit.shell.opening import open_model

    check_effects(typed, ["model"], "compare")
    if len(chosen.models) < 2:
        raise UserError("compare shows two or more models beside each other — name them: compare A B")
    device = typed.of(flags.DeviceOptions)
    return [subject_of(typed, open_model(flags.ModelOptions(name), device)) for name in chosen.models]


def subject_of(typed, opened):
    """A model, and functions that load its data and other pictures."""
    from toolkit.datasets import full_name
    from toolkit.pictures.sampling import ALL, Sampler
    from toolkit.pictures.subject import Subject
    from toolkit.shell.data import dataset_of, load_for, load_pictures
    from toolkit.shell.opening import prior_of
    from toolkit.wording import public_name

    label, data, prior = typed.of(LabelOptions).label, typed.of(flags.DataOptions), typed.of(flags.PriorOptions)
    place, seed = typed.of(flags.PlaceOptions), typed.of(flags.SeedOptions).seed
    return Subject(
        opened.checkpoint,
        lambda split: load_for(opened.checkpoint, dataset_of(opened, data.dataset), split, place, data.limit),
        label,
        Sampler(prior_of(opened, prior.prior), prior.temperature, seed, prior.pixels == "sample"),
        lambda files: load_pictures(opened.checkpoint, files, None if label == ALL else label),
        name=opened.name,
        dataset=public_name(full_name(data.dataset)) if data.dataset else "",
        device=opened.device,
        runs=own_runs(opened.path),
    )


def own_runs(model):
    """The run that trained a model, if it is next to it."""
    from toolkit.formats.checkpoint import run_folder

    return list(filter(None, [run_folder(model)]))


if __name__ == "__main__":
    main()
