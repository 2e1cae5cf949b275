"""A folder or zip file of pictures, in any tree: what is in it, and how to open it. No picture is decoded here."""

import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from toolkit.datasets.decoding import ENDINGS, LARGEST_FILE, REMEDIES
from toolkit.datasets.factors import FILE
from toolkit.errors import UserError
from toolkit.files.reading import check_directory, opened, unpacked
from toolkit.files.writing import reason
from toolkit.wording import as_text, counted

OURS = "made by this toolkit"  # pictures such as the sheets of a run in the same folder
MOST_KINDS = 6  # of files left out, by name; the others are summed up
LARGEST_DIRECTORY = 2**25  # bytes of that of a zip file; 200,000 names have 17 million
MOST_FOLDERS = 2**16  # in a tree of pictures; ImageNet-21k has 21,841


def is_tree(path: Path | str) -> bool:
    """Whether a path is a folder or a zip file."""
    return os.path.isdir(path) or (os.path.isfile(path) and os.fspath(path).lower().endswith(".zip"))


def has_pictures(path: Path | str) -> bool:
    """Whether a path is a folder or zip file with pictures anywhere in it, also such as need an extra package."""
    entries = walk(path) if is_tree(path) else ()
    return any(is_file and (is_picture(name) or kind_of_name(name) in REMEDIES) for name, is_file, _ in entries)


def listing(tree: Path | str) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]], Counter]:
    """All image files in a tree except hidden ones, sorted: (name below it, size, time of last change or checksum).

    Also the entries that cannot be inspected: (name, reason); and the number of other files, by kind.
    """
    found, problems, others = [], [], Counter()
    for name, is_file, facts in walk(tree):
        if not is_file:
            problems.append((name, facts))
        elif is_picture(name):
            found.append((name, *facts))
        else:
            others[name if name == FILE else kind_of_name(name)] += 1
    return sorted(found), sorted(problems), others


def opener(tree: Path | str) -> Callable[[str], BinaryIO]:
    """A function that opens a file of a tree, from its name below it."""
    if os.path.isdir(tree):
        return lambda name: opened(Path(tree, name), LARGEST_FILE)
    archive = unzipped(tree)
    entries = dict(members(archive))

    def open_entry(name):
        if entries[name].file_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE / 2**20:.3g} MiB")
        if entries[name].flag_bits & 1:
            raise ValueError("it is encrypted")
        return io.BytesIO(unpacked(archive, entries[name]))

    return open_entry


def unzipped(path: Path | str) -> zipfile.ZipFile:
    """Open a zip file, if its directory is readable; nothing is unpacked to disk."""
    try:
        with opened(path) as file:
            check_directory(file, LARGEST_DIRECTORY)
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged: {reason(error)} — download or make it again") from None


def members(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """The files in a zip file except hidden ones, with their names below the one folder that contains them all."""
    found = {}
    for entry in archive.infolist():
        name = decode_name(entry)
        parts = [part for part in name.split("/") if part]
        if parts and not (name.endswith("/") or parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)):
            found["/".join(parts)] = entry
    tops = {name.partition("/")[0] if "/" in name else "" for name in found}
    top = f"{min(tops)}/" if len(tops) == 1 and tops != {""} else ""
    for name, entry in found.items():
        yield name.removeprefix(top), entry


def decode_name(entry):
    """The name of an entry; some programs write UTF-8 without saying so."""
    with suppress(UnicodeError):
        if not entry.flag_bits & 0x800:
            return entry.filename.encode("cp437").decode()
    return entry.filename


def walk(tree: Path | str) -> Iterator[tuple[str, bool, tuple[int, int] | str]]:
    """The files in a folder or zip file except hidden ones: (name below it, True, (size, time or checksum))."""
    if os.path.isdir(tree):
        yield from walk_folder(tree)
    else:
        with unzipped(tree) as archive:
            for name, entry in members(archive):
                yield name, True, (entry.file_size, entry.CRC)


def walk_folder(folder):
    """The files in a folder, and the pictures and folders that cannot be inspected: (name, False, reason).

    Links are followed, but no folder is visited twice, nor any parent of this one.
    """
    waiting, seen = [""], {identity(os.stat(above)) for above in Path(os.path.realpath(folder)).parents}
    while waiting:
        name = waiting.pop()
        path = os.path.join(folder, name)
        try:
            facts = os.stat(path)
            if stat.S_ISDIR(facts.st_mode):
                if identity(facts) not in seen:
                    seen.add(identity(facts))
                    waiting += [os.path.join(name, below) for below in os.listdir(path) if not below.startswith(".")]
            elif stat.S_ISREG(facts.st_mode):
                yield name, True, (facts.st_size, facts.st_mtime_ns)
            elif is_picture(name):  # a pipe could wait for ever, a device may have no end
                yield name, False, "it is not a regular file"
        except OSError as error:
            if not name:
                raise UserError(f"cannot read {folder}: {reason(error)} — check its permissions") from None
            if is_picture(name) or not isinstance(error, FileNotFoundError):  # a broken link
                yield name, False, reason(error)
        if len(seen) > MOST_FOLDERS:
            raise UserError(f"{folder} has more than {MOST_FOLDERS} folders — choose the one with the pictures")


def is_picture(name):
    """Whether a file name has an ending of pictures."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def kind_of_name(name):
    """The kind of a file: its ending in capitals."""
    return as_text(os.path.splitext(name)[1][1:13].upper()) or "without an ending"


def in_words(left_out: dict[str, int], damaged: str = "") -> str:
    """The files that were left out, by kind, with what to do: `12 HEIC (pip install pillow-heif), 3 MOV`."""
    kinds = sorted(left_out, key=lambda kind: (kind not in REMEDIES, kind == OURS, -left_out[kind], kind))
    remedies = {kind: f" ({REMEDIES[kind]})" for kind in kinds if kind in REMEDIES}
    words = [f"{left_out[kind]} {kind}{remedies.get(kind, '')}" for kind in kinds[:MOST_KINDS]]
    if others := sum(left_out[kind] for kind in kinds[MOST_KINDS:]):
        words.append(counted(others, "other"))
    return ", ".join([*words, damaged] if damaged else words)


def identity(facts):
    """The identity of a folder, whatever its name."""
    return facts.st_dev, facts.st_ino
