"""Metrics in words: name, value and meaning of each, for evaluate.py and reports."""

import math
from collections.abc import Iterator
from typing import Any


def rows(metrics: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value and meaning of every metric that there is."""

    def mean(name: str, digits: int = 3) -> str:
        value, spread = metrics[name]["mean"], metrics[name]["standard_error"]
        return f"{value:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")

    yield "Loss", mean("loss"), "reconstruction + KL in nats per image"
    yield "Reconstruction", mean("reconstruction"), "nats per image, error of one sample"
    yield "KL", mean("kl"), f"nats per image, from {metrics['prior']}"
    constant = f", with its constant {metrics['constant']:.2f}" if metrics["constant"] else ""
    yield "ELBO", mean("elbo"), f"nats per image, {metrics['likelihood']}{constant}"
    if "bits_per_dimension" in metrics:
        yield "Bits per dimension", f"{metrics['bits_per_dimension']:.5f}", "−ELBO in bits per pixel and channel"
    if "log_likelihood" in metrics:
        bound = metrics["log_likelihood"]
        of_samples = f"from {bound['importance_samples']} importance samples each"
        yield "log p(x) ≥", mean("log_likelihood"), f"nats per image, {of_samples}"
        if "bits_per_dimension" in bound:
            yield "Bits per dimension", f"{bound['bits_per_dimension']:.5f}", f"the same in bits, {of_samples}"
    yield "Mean squared error", f"{metrics['mean_squared_error']:.6f}", "per pixel in [0, 1], from the mean"
    yield "PSNR", f"{metrics['psnr']:.2f} dB", "the same in decibels"
    yield "SSIM", mean("ssim", 4), "1 for equal images"
    active = f"{metrics['active_units']} of {metrics['latent_dims']}"
    yield "Active units", active, "dimensions: variance of the mean > 0.01"
    yield "I(x; z)", f"{metrics['mutual_information']:.3f}", f"nats; at most log {metrics['images']} can be seen"
    if "marginal_kl" in metrics:
        yield (
            "Marginal KL",
            f"{metrics['marginal_kl']:.3f}",
            f"nats between the aggregate posterior and {metrics['prior']}",
        )
    if "linear_probe" in metrics:
        yield "Linear probe", f"{metrics['linear_probe']:.2%}", "test accuracy of a linear classifier of the means"
        yield "Nearest neighbours", f"{metrics['nearest_neighbours']:.2%}", "test accuracy of the 5 nearest means"
