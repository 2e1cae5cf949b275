"""Flags of earlier systems that are more than another spelling: what they mean in terms of today's options.

docs/compatibility.md says where each comes from. Those that are only spelled otherwise are aliases of their option.
"""

from dataclasses import dataclass, replace

from toolkit.errors import UserError
from toolkit.options import option, text, weight
from toolkit.shell.parser import Typed


@dataclass(frozen=True)
class EarlierTraining:
    beta_max: float | None = option(
        None, "--beta; what is typed as --beta is then --beta_start", "objective", kind=weight, unit="X", hidden=True
    )
    type_of_embedding: str | None = option(
        None,
        "cat and one_hot mean --conditional; with --arch bounded also which --label_planes",
        "model",
        kind=text,
        choices=("none", "cat", "one_hot"),
        hidden=True,
    )
    decoder: str | None = option(
        None,
        "transpose means --arch transpose",
        "model",
        kind=text,
        choices=("upsample", "transpose"),
        hidden=True,
    )
    detect_posterior_collapse: bool = option(
        False, "no effect: collapse is always detected and reported", "output and resuming", hidden=True
    )


DECODERS = {"upsample": "conv", "transpose": "transpose"}  # of --decoder, and the architecture that has it


def translated(typed: Typed) -> Typed:
    """The flags of train.py as typed, in today's options."""
    values = dict(typed.values)
    if decoder := values.pop("decoder", None):
        arch = values.get("arch", DECODERS["upsample"])
        if arch not in DECODERS.values():
            raise UserError(f"--arch {arch} has a decoder of its own — leave --decoder {decoder} out")
        if arch not in (DECODERS["upsample"], DECODERS[decoder]):
            raise UserError(f"--decoder {decoder} contradicts --arch {arch} — leave it out")
        values["arch"] = DECODERS[decoder]
    if "beta_max" in values:
        if "beta" in values:
            if "beta_warmup" not in values:
                raise UserError("--beta beside --beta_max is where its warm-up starts — add --beta_warmup EPOCHS")
            values["beta_start"] = values["beta"]
        values["beta"] = values.pop("beta_max")
    if kind := values.pop("type_of_embedding", None):
        other = "conditional" if kind == "none" else "label_planes"
        if other in values:
            raise UserError(f"--type_of_embedding {kind} contradicts --{other} — leave one of them out")
        if kind != "none":
            values["conditional"] = True
            if not architecture(values).decodes_classes:
                values["label_planes"] = kind
    return replace(typed, values=values)


def architecture(values):
    """That which was typed, or the default one."""
    from toolkit.architectures import ModelConfig

    return ModelConfig(arch=values.get("arch", ModelConfig.arch)).architecture
