"""python encode.py cat.jpg dog.jpg --outfile codes.npz
python encode.py --model last --split test --outfile codes.csv

Encode pictures, or a split of a data set, into latent vectors: the mean and the
log-variance of each image, with its name, and its class if it has one.
generate.py --codes decodes such a file.
"""

from dataclasses import dataclass

from toolkit.files.targets import NEW, check_ending
from toolkit.options import option, path, with_conditions
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import parse
from toolkit.wording import counted


@dataclass(frozen=True)
class EncodeOptions:
    images: tuple[str, ...] = option(
        (), "picture files and folders", "data", kind=path, unit="IMAGE", positional=True, several=True, common=True
    )
    split: str = option("test", "data set split", "data", choices=("test", "train"), common=True, not_with=("images",))
    outfile: str = option("codes.npz", "latent vectors: .npz or .csv; - is stdout", "output", kind=path, common=True)


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    data = [with_conditions(part, not_with=("images",)) for part in (flags.DataOptions, flags.PlaceOptions)]
    return EncodeOptions, flags.ModelOptions, flags.LabelOptions, *data, flags.WriteOptions, flags.DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args = typed.of(EncodeOptions)
    from toolkit.formats import codes
    from toolkit.model import inference
    from toolkit.shell.data import dataset_of, load_for, load_pictures
    from toolkit.shell.opening import open_model

    model, data = typed.of(flags.ModelOptions), typed.of(flags.DataOptions)
    flags.check_targets(typed.of(flags.WriteOptions), NEW, [args.outfile], model.model, *args.images)
    check_ending(args.outfile, codes.ENDINGS)
    with beside(args.outfile):
        opened = open_model(model, typed.of(flags.DeviceOptions))
        if args.images:
            images = load_pictures(opened.checkpoint, args.images, typed.of(flags.LabelOptions).label)
        else:
            dataset, place = dataset_of(opened, data.dataset), typed.of(flags.PlaceOptions)
            images = load_for(opened.checkpoint, dataset, args.split, place, data.limit)
        mean, log_var = inference.encode(opened.model, images)
        classes = None if images.labels is None else [images.class_names[label] for label in images.labels]
        codes.save(args.outfile, codes.Codes(images.names, mean, log_var, classes))
        print(f"{counted(len(mean), 'latent vector')} of {mean.shape[1]} dims: {args.outfile}")


if __name__ == "__main__":
    main()
