"""python evaluate.py --importance_samples 50
python evaluate.py --model last --json metrics.json

Evaluate a model on the test split: ELBO, log-likelihood, reconstructions and
latent vectors.
"""

import shlex
import sys
import textwrap
from dataclasses import dataclass

from toolkit.files.records import as_json
from toolkit.files.targets import METRICS, check_ending, mark
from toolkit.files.writing import write
from toolkit.options import count, number, option, path, sample_count
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import parse
from toolkit.wording import counted, public_name

WIDTH, NAMES, VALUES = 80, 18, 17  # of the table, and of its first two columns
FOR_A_PAPER = 5000  # importance samples
NEIGHBOURS = 5  # that scores of samples compare


@dataclass(frozen=True)
class EvaluateOptions:
    importance_samples: int = option(
        20, "samples per image for log p(x), for papers 5000; 0 skips it", "sampling", kind=sample_count, common=True
    )
    prior: str | None = flags.prior_option("prior for KL and log p(x)", default_text="that of training")
    score_samples: int | None = option(
        None,
        "score N samples from each prior",
        "sampling",
        kind=number(int, NEIGHBOURS + 1, 10**6),
        common=True,
    )
    temperature: float = option(
        1.0, "scale of their latent noise", "sampling", kind=number(float, 0, 1000), only_with=("score_samples",)
    )
    batchsize: int = option(250, "batch size; affects speed only", "general", kind=count, aliases=("batch_size",))
    json: str | None = option(None, "also write the metrics to FILE; - is stdout", "output", kind=path, common=True)


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    shared = flags.DataOptions, flags.PlaceOptions, flags.SeedOptions, flags.WriteOptions, flags.DeviceOptions
    return flags.ModelOptions, EvaluateOptions, *shared


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    args, seed = typed.of(EvaluateOptions), typed.of(flags.SeedOptions).seed
    model, data = typed.of(flags.ModelOptions), typed.of(flags.DataOptions)
    if args.json:
        flags.check_targets(typed.of(flags.WriteOptions), METRICS, [args.json], model.model)
        check_ending(args.json, (".json",))
    from toolkit.machine import ranks
    from toolkit.metrics.features import network_for
    from toolkit.metrics.measure import measure_in_turn
    from toolkit.metrics.samples import check_count, measure_samples
    from toolkit.metrics.words import rows, sample_lines
    from toolkit.pictures.card import command_of
    from toolkit.shell.data import dataset_of, load_for
    from toolkit.shell.opening import open_model, prior_of
    from toolkit.shell.origin import checksum, command_line, name_of, versions
    from vae import VAE

    with beside(args.json):
        opened = open_model(model, typed.of(flags.DeviceOptions), together=True)
        prior = prior_of(opened, args.prior) if args.prior is not None else opened.model.prior
        dataset = dataset_of(opened, data.dataset)

        def load(split):
            place = typed.of(flags.PlaceOptions)
            return ranks.leader_first(lambda: load_for(opened.checkpoint, dataset, split, place, data.limit))

        test = load("test")
        if args.score_samples:
            check_count(args.score_samples, test)
        train = load("train") if test.labels is not None or args.score_samples else None
        if ranks.size > 1:
            common = {"importance_samples": args.importance_samples, "prior": args.prior, "seed": seed}
            common["checksum of the model"] = checksum(opened)
            common["checksums of the data"] = [split and split.checksum() for split in (test, train)]
            ranks.check_same(common, "give every rank the same flags, model and data")
        print(f"Device: {opened.device}")
        trained = opened.model
        under = VAE(trained.config, trained.encoder, trained.decoder, trained.likelihood, prior).eval()
        print(f"{dataset}, {counted(len(test.images), 'test image')}, random seed {seed}, prior: {prior.words}\n")
        metrics, printed = {}, 0
        known = None if test.labels is None else train
        for part in measure_in_turn(under, test, known, args.importance_samples, seed, args.batchsize):
            metrics |= part
            table = list(rows(metrics))
            print_rows(table[printed:])
            printed = len(table)
        print_kl(metrics.get("kl_by_dimension", []))
        if "log_likelihood" in metrics and "importance_samples" not in typed:
            words = sys.argv[1:] if argv is None else argv
            print("\n  log p(x) grows with the number of samples. For a paper:")
            print(f"  {typed.program} {shlex.join([*words, '--importance_samples', str(FOR_A_PAPER)])}")
        if args.score_samples and ranks.rank == 0:
            network = network_for(dataset, trained.config.channels)
            drawn = args.score_samples, args.temperature, seed
            metrics["samples"] = measure_samples(trained, opened.checkpoint.priors, test, train, network, *drawn)
            print("\n" + "\n".join(sample_lines(metrics["samples"])))
        if args.json and ranks.rank == 0:
            made = opened.checkpoint
            training = {"command": command_of(made), "epochs": made.epoch, "options": made.options}
            facts = {"made_by": mark(METRICS), "command": command_line(typed, opened), "model": name_of(opened)}
            facts |= {"model_sha256": checksum(opened), "dataset": public_name(dataset), "evaluation_seed": seed}
            facts |= {"training": training, "device": opened.device, "versions": versions()}
            write(args.json, as_json(facts | metrics))
            print(f"Metrics: {args.json}")


def print_rows(rows):
    """Metrics as rows of a table: name, value, meaning."""
    for name, value, meaning in rows:
        start = f"  {name:{NAMES}} {value:>{VALUES}}  "
        print(textwrap.fill(meaning, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)))


def print_kl(kl_by_dimension):
    """The KL of each dimension, the largest first."""
    used = sorted(enumerate(kl_by_dimension), key=lambda pair: -pair[1])
    if used:
        kl = ", ".join(f"z{i}\xa0{kl:.2f}" for i, kl in used[:16]) + (", …" if used[16:] else "")
        shown = textwrap.fill(f"KL by dimension: {kl}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        print("\n" + shown.replace("\xa0", " "))


if __name__ == "__main__":
    main()
