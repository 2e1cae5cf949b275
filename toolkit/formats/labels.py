"""The class given with --label."""

from toolkit.errors import UserError
from toolkit.formats.checkpoint import Checkpoint


def class_number(checkpoint: Checkpoint, label: str | None, encoding: bool = False) -> int | None:
    """The number of a class given by name or number, for decoding or encoding; None if none is given."""
    config, names = checkpoint.model.config, checkpoint.class_names
    classes = config.num_classes if encoding else config.decoder_classes
    if label is None:
        return None
    if not classes:
        why, way = "this model is not class-conditional", "train with --conditional"
        if config.num_classes:
            why, way = "only this model's encoder uses labels", "train another --arch"
        raise UserError(f"--label {label}: {why} — leave it out, or {way}")
    if label in names:
        return names.index(label)
    if label.isdecimal() and len(label) < 10 and int(label) < classes:
        return int(label)
    known = f"0 to {classes - 1}" + (f" or {', '.join(names)}" if names[0] != "0" else "")
    raise UserError(f"--label {label[:40]}: the classes of this model are {known} — choose one of them")
