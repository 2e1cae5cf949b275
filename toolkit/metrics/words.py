"""Name, value and meaning of each metric, for evaluate.py and reports; the table of the scores of samples."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any


def rows(metrics: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value and meaning of each metric in the dictionary, in the order in which measure.py computes them."""

    def mean(name: str, digits: int = 3) -> str:
        value, spread = metrics[name]["mean"], metrics[name]["standard_error"]
        return f"{value:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")

    prior = metrics["prior"] if len(metrics["prior"]) < 20 else "the prior"
    yield "Loss", mean("loss"), "nats, reconstruction + KL"
    yield "Reconstruction", mean("reconstruction"), "nats, from one sample"
    yield "KL", mean("kl"), f"nats, from {prior}"
    constant = f", const {metrics['constant']:.2f}" if metrics["constant"] else ""
    yield "ELBO", mean("elbo"), metrics["likelihood"] + constant
    if "bits_per_dimension" in metrics:
        yield "Bits per dimension", f"{metrics['bits_per_dimension']:.5f}", "−ELBO in bits per pixel and channel"
    yield "Mean squared error", f"{metrics['mean_squared_error']:.6f}", "per pixel in [0, 1], from the mean"
    yield "PSNR", f"{metrics['psnr']:.2f} dB", "the same in decibels"
    yield "SSIM", mean("ssim", 4), "1 for equal images"
    if "active_units" in metrics:
        active = f"{metrics['active_units']} of {metrics['latent_dims']}"
        yield "Active units", active, "dimensions: variance of the mean > 0.01"
    if "mutual_information" in metrics:
        most = math.log(metrics["images"])
        yield "I(x; z)", f"{metrics['mutual_information']:.3f}", f"nats; cannot exceed log N = {most:.3f}"
    if "marginal_kl" in metrics:
        yield "Marginal KL", f"{metrics['marginal_kl']:.3f}", "nats, aggregate posterior from the prior"
    if "linear_probe" in metrics:
        yield "Linear probe", f"{metrics['linear_probe']:.2%}", "test accuracy of a linear classifier"
    if "nearest_neighbours" in metrics:
        yield "Nearest neighbours", f"{metrics['nearest_neighbours']:.2%}", "test accuracy of the 5 nearest means"
    if "log_likelihood" in metrics:
        bound = metrics["log_likelihood"]
        yield "log p(x) ≥", mean("log_likelihood"), f"nats, {bound['importance_samples']} importance samples each"
        if "bits_per_dimension" in bound:
            yield "Bits per dimension", f"{bound['bits_per_dimension']:.5f}", "−log p(x) in bits per pixel and channel"


SCORES = {"frechet": 2, "precision": 3, "recall": 3, "density": 3, "coverage": 3, "novelty": 2}  # and their digits
NAME, COLUMN = 20, 10  # widths of their table


def sample_lines(samples: dict[str, Any]) -> Iterator[str]:
    """The scores of samples as the lines of a table; below each score its standard deviation."""
    count, draws = f"{samples['count']:,}", samples["draws"]
    at = "" if samples["temperature"] == 1 else f", temperature {samples['temperature']:g}"
    yield f"  Against {count} test images{at}: mean and standard deviation of {draws} draws, in"
    yield f"  features of {samples['features']}"
    yield ""
    yield " " * NAME + "".join("Fréchet".rjust(COLUMN) if name == "frechet" else name.rjust(COLUMN) for name in SCORES)
    rows = dict(samples["scores"])
    for name, scores in rows.items():
        found = [scores.get(score) for score in SCORES]
        digits = SCORES.values()
        values = [f"{one['mean']:.{n}f}" if one else "–" for one, n in zip(found, digits, strict=True)]
        spread = [f"±{one['deviation']:.{n}f}" if one else "" for one, n in zip(found, digits, strict=True)]
        *before, last = textwrap.wrap(name, NAME - 3)
        yield from (f"  {words}" for words in before)
        yield f"  {last:{NAME - 2}}" + "".join(value.rjust(COLUMN) for value in values)
        yield (" " * NAME + "".join(value.rjust(COLUMN) for value in spread)).rstrip()
    if not any("frechet" in scores for scores in rows.values()):
        yield f"  The Fréchet distance needs more than {samples['dimensions']} samples."
    if classes := samples.get("by_class"):
        yield ""
        yield "  By class: Fréchet distance and coverage, from"
        yield f"  {samples['prior_by_class']}"
        for name, scores in classes.items():
            told = (
                "too few images"
                if scores is None
                else ", ".join(
                    f"{scores[score]['mean']:.{SCORES[score]}f} ± {scores[score]['deviation']:.{SCORES[score]}f}"
                    for score in ("frechet", "coverage")
                )
            )
            yield f"  {name:{NAME - 2}}  {told}"
