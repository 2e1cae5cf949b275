"""Flags of earlier systems, translated into today's options.

docs/compatibility.md lists their origins. Flags that only differ in spelling are aliases of their option.
"""

from dataclasses import dataclass
from typing import Any

from toolkit.architectures import ARCHITECTURES, ModelConfig
from toolkit.errors import UserError
from toolkit.options import option, weight

DECODERS = {"upsample": "conv", "transpose": "transpose"}  # values of --decoder and their architectures
EMBEDDINGS = ("none", "cat", "one_hot")


@dataclass(frozen=True)
class EarlierTraining:
    beta_max: float | None = option(None, "--beta; then --beta is --beta_start", "objective", kind=weight, hidden=True)
    type_of_embedding: str | None = option(
        None, "--conditional; with --arch bounded also --label_planes", "model", choices=EMBEDDINGS, hidden=True
    )
    decoder: str | None = option(None, "transpose: --arch transpose", "model", choices=tuple(DECODERS), hidden=True)
    detect_posterior_collapse: bool = option(False, "no effect: always on", "output", hidden=True)


def translated(typed: dict[str, Any]) -> dict[str, Any]:
    """Translate earlier flags of train.py into today's options."""
    values = dict(typed)
    if decoder := values.pop("decoder", None):
        arch = values.get("arch", DECODERS["upsample"])
        if arch not in DECODERS.values():
            raise UserError(f"--arch {arch} has its own decoder — leave --decoder {decoder} out")
        if arch not in (DECODERS["upsample"], DECODERS[decoder]):
            raise UserError(f"--decoder {decoder} contradicts --arch {arch} — leave it out")
        values["arch"] = DECODERS[decoder]
    if "beta_max" in values:
        if "beta" in values:
            if "beta_warmup" not in values:
                raise UserError("with --beta_max, --beta is the start of its warm-up — add --beta_warmup EPOCHS")
            values["beta_start"] = values["beta"]
        values["beta"] = values.pop("beta_max")
    if kind := values.pop("type_of_embedding", None):
        other = "conditional" if kind == "none" else "label_planes"
        if other in values:
            raise UserError(f"--type_of_embedding {kind} contradicts --{other} — leave one of them out")
        if kind != "none":
            values["conditional"] = True
            if not ARCHITECTURES[values.get("arch", ModelConfig.arch)].decodes_classes:
                values["label_planes"] = kind
    return values
