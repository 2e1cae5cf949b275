"""python evaluate.py

Score a model on the test split: its bound and its likelihood, its reconstructions, and what its codes hold. The model's
file says what it was trained on.
"""

import json
import math
from pathlib import Path

import cli


def parse(argv):
    parser = cli.Parser(__doc__)
    cli.add_model_flags(parser)
    cli.add_data_flags(parser)
    add = parser.add_argument
    add(
        "--importance_samples",
        type=cli.number(int, 0, 10**7),
        default=500,
        metavar="K",
        help="codes drawn for the likelihood of an image; 0 leaves it out, which takes most of the time",
    )
    add(
        "--batchsize",
        "--batch_size",
        type=cli.count,
        default=250,
        metavar="N",
        help="images at once: for speed only",
    )
    add("--seed", type=cli.seed, default=0, metavar="N", help="the number that all chance comes from")
    add("--json", type=cli.name, metavar="FILE", help="write the figures to a file, too")
    cli.add_device_flags(parser)
    return parser.parse(argv)


@cli.command
def main(argv=None):
    args = parse(argv)
    if args.json:
        cli.check_file(args.json)
    model, facts, device_name = cli.open_model(args)
    import evaluation
    from files import write
    from progress import Bars

    dataset = cli.data_of(args, facts)
    test = cli.load_for(args, model, facts, "test")
    train = None if test.labels is None else cli.load_for(args, model, facts, "train")
    print(f"Device: {device_name}")

    with Bars() as watch:
        figures = evaluation.evaluate(model, test, train, args.importance_samples, args.seed, args.batchsize, watch)
    print_figures(figures, f"{dataset}, {len(test.images)} test images, seed {args.seed}")
    if args.json:
        described = {"model": str(args.model), "dataset": dataset, "seed": args.seed} | figures
        write(Path(args.json), (json.dumps(finite(described), indent=2) + "\n").encode())
        print(f"Figures: {args.json}")


def finite(figures):
    """The same for JSON, which knows no NaN and no infinity: null instead."""
    if isinstance(figures, dict):
        return {name: finite(figure) for name, figure in figures.items()}
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def print_figures(figures, title):
    """The figures as a table: name, value, what it is."""
    print(f"{title}\n")
    for name, value, meaning in rows(figures):
        print(f"  {name:24s} {value:>22s}  {meaning}")
    used = sorted(enumerate(figures["kl_by_dimension"]), key=lambda pair: -pair[1])
    print("\n  KL by dimension: " + ", ".join(f"z{i} {kl:.2f}" for i, kl in used[:16]) + (", …" if used[16:] else ""))


def rows(figures):
    """Name, value and meaning of every figure that there is."""

    def nats(name):
        return f"{figures[name]['mean']:.3f} ± {figures[name]['standard_error']:.3f}"

    yield "Reconstruction", nats("reconstruction"), "nats per image, of one code drawn" + constant_left_out(figures)
    yield "KL", nats("kl"), "nats per image"
    yield "ELBO", nats("elbo"), f"nats per image, {figures['likelihood']}" + constant_named(figures)
    if "bits_per_dimension" in figures:
        yield "Bits per dimension", f"{figures['bits_per_dimension']:.5f}", "−ELBO in bits per pixel and channel"
    if "log_likelihood" in figures:
        samples = figures["log_likelihood"]["importance_samples"]
        yield "log p(x) ≥", nats("log_likelihood"), f"nats per image, from {samples} importance samples each"
    yield "Mean squared error", f"{figures['mean_squared_error']:.6f}", "per pixel in [0, 1], of the mean code"
    yield "PSNR", f"{figures['psnr']:.2f} dB", "the same in decibels"
    yield "SSIM", f"{figures['ssim']['mean']:.4f} ± {figures['ssim']['standard_error']:.4f}", "1 for equal images"
    yield (
        "Active units",
        f"{figures['active_units']} of {figures['latent_dims']}",
        "dimensions: variance of the mean > 0.01",
    )
    yield "I(x; z)", f"{figures['mutual_information']:.3f}", f"nats; at most log {figures['images']} can be seen"
    yield "Marginal KL", f"{figures['marginal_kl']:.3f}", "nats between all codes together and the prior"
    if "linear_probe" in figures:
        yield "Linear probe", f"{figures['linear_probe']:.2%}", "test classes found by a linear classifier of the means"
        yield "Nearest neighbours", f"{figures['nearest_neighbours']:.2%}", "test classes found by the 5 nearest means"


def constant_left_out(figures):
    return ", without the Gaussian's constant" if figures["constant"] else ""


def constant_named(figures):
    return f", with its constant {figures['constant']:.2f}" if figures["constant"] else ""


if __name__ == "__main__":
    main()
