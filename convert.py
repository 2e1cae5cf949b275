"""python convert.py model.pth model.npz

Convert a checkpoint: reads PyTorch's .pth, .safetensors and .npz, writes .npz or .safetensors, by the ending of OUT.
"""

from pathlib import Path

import cli


def parse(argv):
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("input", metavar="IN", type=cli.name, help="checkpoint to read: .pth, .safetensors or .npz")
    add("output", metavar="OUT", type=cli.name, help="checkpoint to write: .npz or .safetensors")
    add("--dataset", metavar="NAME", help="what it was trained on, for files that do not say (default: as IN says)")
    return parser.parse(argv)


@cli.command
def main(argv=None):
    args = parse(argv)
    ending = Path(args.output).suffix.lower()
    if ending not in (".npz", ".safetensors"):
        raise cli.UserError(f"{args.output} ends in {ending or 'nothing'} — write .npz or .safetensors")
    import device

    device.start(cpu=True)
    import checkpoint
    import datasets

    model, facts = checkpoint.load_model(args.input)
    if args.dataset:
        facts["dataset"] = datasets.full_name(args.dataset)
    save = checkpoint.save_model if ending == ".npz" else checkpoint.save_safetensors
    save(args.output, model, facts)
    print(f"{args.input} → {args.output}: {model.parameter_count():,} parameters")


if __name__ == "__main__":
    main()
