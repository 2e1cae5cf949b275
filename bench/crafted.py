"""python bench/crafted.py

Files made on purpose, one row of a table for each kind of fault that once was found: each command must do what it is
for, or end in one line, within SLOWEST seconds and LARGEST bytes more than it takes for a good file. bench/attack.py
draws rows from the table. Nothing of the toolkit is imported, so `--tree DIR` attacks any checkout, also an old one.
"""

import argparse
import io
import json
import os
import pickletools
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SLOWEST, LARGEST = 3, 300 * 2**20  # above those of a good file
STOP = 12, 1200 * 2**20  # seconds and bytes at which a command is ended
SIZE = "--dataset synthetic --limit 60 --max_filters 8 --latent_dims 2 --epochs 1 --cpu"
FEW = "--dataset synthetic --limit 9 --cpu"


# Making files


def change_facts(source: Path, target: Path, change: Callable[[dict], None]) -> None:
    """Copy an .npz checkpoint with other metadata, under a right checksum."""
    shutil.copy(source, target)
    with zipfile.ZipFile(target, "a") as archive:
        facts = json.loads(archive.comment.split(b" ", 2)[2])
        change(facts)
        text = json.dumps(facts).encode()
        archive.comment = f"vae {zlib.crc32(text):08x} ".encode() + text


def config(source: str, **values):
    """Make x.npz: a model with other values in its configuration."""

    def make(place):
        change_facts(place / source, place / "x.npz", lambda facts: facts["config"].update(values))

    return make


def class_names(*names: str, only: bool = False):
    """Make x.npz: a conditional model with other class names, followed by numbers unless they are the `only` ones."""

    def make(place):
        said = list(names) if only else [*names, *map(str, range(10 - len(names)))]
        change_facts(place / "classes.npz", place / "x.npz", lambda facts: facts.update(classes=said, class_names=said))

    return make


def dataset_option(value: str):
    """Make x.npz: a model that says it was trained on a data set of some name."""
    return lambda place: change_facts(
        place / "m.npz", place / "x.npz", lambda facts: facts["options"].update(dataset=value)
    )


def text(name: str, *parts: tuple[str, int]):
    """Make a text file of parts that are repeated."""
    return lambda place: (place / name).write_text("".join(part * count for part, count in parts))


def dense_log(place):
    """A log whose lines are long lists of numbers."""
    long_log(place)
    line = (place / "long.jsonl").read_text().partition("\n")[0][:-1] + ', "more": [' + "0," * 2_000_000 + "0]}"
    lines = (line.replace('"epoch": 1', f'"epoch": {i}') for i in range(1, 8))
    (place / "long.jsonl").write_text("\n".join(lines))


def many_codes(name: str, rows: int, dims: int, named: Callable[[int], str]):
    def make(place):
        head = ",".join(["name", *(f"mean_{i}" for i in range(dims))])
        zeros = ",0" * dims
        (place / name).write_text("\n".join([head, *(named(i) + zeros for i in range(rows)), ""]))

    return make


def array_codes(mean: np.ndarray):
    return lambda place: np.savez(place / "codes.npz", mean=mean)


def old_header(name: str):
    """Make an .npz file whose header has a number as Python 2 wrote it."""

    def make(place):
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L), }"
        head += b" " * (117 - len(head)) + b"\n"
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(24)
        with zipfile.ZipFile(place / name, "w") as archive:
            archive.writestr("mean.npy", data)

    return make


def persons_part(place):
    (place / "out").mkdir()
    (place / "out" / ".vae-my notes.part").touch()


def cased(i: int) -> str:
    """The name of a row, equal to all others but for capitals."""
    return "".join(letter.upper() if i >> k & 1 else letter for k, letter in enumerate("abcdefghijkl"))


def sheets(count: int, side: int):
    def make(place):
        (place / "film").mkdir()
        buffer = io.BytesIO()
        Image.new("L", (side, side)).save(buffer, "PNG")
        for i in range(count):
            (place / "film" / f"epoch_{i + 1:04d}_samples.png").write_bytes(buffer.getvalue())

    return make


def long_log(place):
    scores = '"loss": 1.0, "reconstruction": 1.0, "kl": 1.0'
    rest = f', {scores}, "test": {{{scores}}}, "images_per_second": 9.0}}'
    lines = (f'{{"epoch": {i}{rest}' for i in range(1, 220_001))
    (place / "long.jsonl").write_text("\n".join(lines))


def cache_of_labels(place):
    """Cached pictures whose description has 16 million labels."""
    described = next((place / "cache").rglob("*.json"))
    described.write_text(described.read_text().replace('"labels": null', f'"labels": [{"0," * (15 * 2**20)}0]'))


def pictures(*names: str):
    def make(place):
        (place / "pics").mkdir(exist_ok=True)
        for i, name in enumerate(names):
            Image.new("RGB", (9, 9), (40 * i, 9, 9)).save(place / "pics" / name, "PNG")

    return make


def many_entries(place):
    """A directory that names one entry of an .npz file again and again."""
    with zipfile.ZipFile(place / "m.npz") as archive:
        smallest = min(archive.infolist(), key=lambda entry: entry.file_size)
        data = archive.read(smallest)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", data)
        archive.filelist *= 80_000
    (place / "x.npz").write_bytes(buffer.getvalue())


def deflated_pth(place):
    """A .pth file of 150 MiB of bfloat16 numbers, deflated to a hundredth of them."""
    count = 75 * 2**20
    tensor = [
        *("PROTO 2", "EMPTY_DICT", "MARK", "BINUNICODE encoder.conv3.bias", "GLOBAL torch._utils _rebuild_tensor_v2"),
        *("MARK", "MARK", "BINUNICODE storage", "GLOBAL torch BFloat16Storage", "BINUNICODE 0", "BINUNICODE cpu"),
        *(f"BININT {count}", "TUPLE", "BINPERSID", "BININT 0", "MARK", f"BININT {count}", "TUPLE", "MARK", "BININT 1"),
        *("TUPLE", "NEWFALSE", "EMPTY_DICT", "TUPLE", "REDUCE", "SETITEMS", "STOP"),
    ]
    codes, pickle = {code.name: code for code in pickletools.opcodes}, b""
    for line in tensor:
        name, _, argument = line.partition(" ")
        pickle += codes[name].code.encode("latin1")
        if name == "GLOBAL":
            pickle += argument.replace(" ", "\n").encode() + b"\n"
        elif name == "BINUNICODE":
            pickle += struct.pack("<I", len(argument)) + argument.encode()
        elif argument:
            pickle += bytes([int(argument)]) if name == "PROTO" else struct.pack("<i", int(argument))
    block = np.random.default_rng(0).bytes(14 * 2**16)
    with zipfile.ZipFile(place / "x.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x/data.pkl", pickle)
        with archive.open("x/data/0", "w") as file:
            for _ in range(150):
                file.write(block[: 2**16] + bytes(2**20 - 2**16))


def fake_hub(code: str):
    def make(place):
        (place / "fake").mkdir()
        (place / "fake" / "huggingface_hub.py").write_text(code)

    return make


# Looking at results


def no_injection(place):
    card = place / "h" / "README.md"
    return card.exists() and "\n# INJECTED" in card.read_text() and "the card leaves its code block"


def notes_kept(place):
    return not (place / "out" / ".vae-my notes.part").exists() and "a person's file is gone"


def three_pictures(place):
    return len(list((place / "each").glob("*.png"))) != 4 and "pictures are missing"


NOTEBOOK = """
import sys, warnings
import numpy as np
from toolkit import notebook as n
from toolkit.errors import UserError
m, c = n.load("m.npz"), n.load("classes.npz")
x, nan, inf, lone = np.zeros((2, 8, 8), np.uint8), float("nan"), float("inf"), chr(0xD800)
CALLS = '''
n.sample(m, 0)/n.sample(m, -1)/n.sample(m, 2.5)/n.sample(m, "3")/n.sample(m, None)/n.sample(m, True)/n.sample(m, 10**12)
n.sample(m, 2, seed=-1)/n.sample(m, 2, seed=2**64)/n.sample(m, 2, seed=0.5)/n.sample(m, 2, seed=None)
n.sample(m, 2, seed="a")/n.sample(m, 2, temperature=nan)/n.sample(m, 2, temperature=inf)
n.sample(m, 2, temperature=-1)/n.sample(m, 2, temperature="a")/n.sample(m, 2, temperature=None)
n.sample(m, 2, temperature=1e300)/n.sample(c, 2, labels=[1.5, 2])/n.sample(c, 2, labels=[])/n.sample(c, 2, labels="a")
n.sample(c, 2, labels=[[1], [2]])/n.sample(c, 2, labels=10)/n.sample(m, 2, labels=1)/n.sample(c, 2, labels=[None, 1])
n.sample(c, 2, labels=[[1], [2, 3]])/n.decode(m, nan)/n.decode(m, [nan, 0])/n.decode(m, [inf, 0])/n.decode(m, "a")
n.decode(m, [[0, 1], [2]])/n.decode(m, np.zeros((0, 2)))/n.decode(m, np.zeros((2, 2, 2)))/n.decode(m, 1j * np.ones(2))
n.decode(m, None)/n.decode(m, [1e300, 0])/n.decode(m, [object(), 0])/n.decode(m, np.zeros(3))/n.encode(m, None)
n.encode(m, "a")/n.encode(m, [])/n.encode(m, np.zeros((2, 8, 8), complex))/n.encode(m, np.full((8, 8), nan))
n.encode(m, np.full((8, 8), "a"))/n.encode(m, [[0, 1], [2]])/n.encode(m, x[:0])/n.encode(m, x.astype(object))
n.encode(m, np.zeros((2, 8, 8), bool))/n.encode(c, x)/n.encode(c, x, [1])/n.encode(c, x, 99)
n.encode(m, x.astype(int))/n.encode(m, x - 1.0)/n.encode(m, np.zeros((1, 2, 3, 4, 5)))
n.encode(m, [None])/n.reconstruct(m, np.zeros((8, 8, 4)))/n.reconstruct(c, x, nan)
n.load("")/n.load("none.npz")/n.load(None)/n.load(3)/n.load(".")/n.load("a" + chr(0))/n.load(lone)
'''
bad = []
for call in CALLS.replace("/", chr(10)).split(chr(10)):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = eval(call) if call else 0
        parts = [] if not call or call.startswith("n.load") else made if isinstance(made, tuple) else [made]
        if not all(np.isfinite(part).all() and len(part) for part in parts):
            bad.append(call + ": NaN, infinity or nothing")
    except UserError as error:
        bad += [f"{call}: {error}"] if " \u2014 " not in str(error) else []
    except Exception as error:
        bad.append(f"{call}: {type(error).__name__}: {str(error)[:60]}")
sys.exit(f"Traceback: {len(bad)} calls: " + "; ".join(bad) if bad else 0)
"""


# The table


class Row(NamedTuple):
    """A kind of fault: what to make, and the lines to type then; `{x}` in a variable stands for the place."""

    kind: str
    make: Callable[[Path], object]
    lines: tuple[str, ...]
    check: Callable[[Path], str | bool] = lambda place: False  # what is wrong with the files
    variables: tuple[tuple[str, str], ...] = ()


def rows(kind, make, *lines, **more):
    """A row for each line."""
    return [Row(kind, make, (line,), **more) for line in lines]


FILM = "visualize.py training --logs film --outfile a.gif"
DECODE = "generate.py --model m.npz --codes"
SAMPLES = "visualize.py samples --label all --model x.npz --cpu"
CACHED = "encode.py --model m.npz --dataset folder:photos --cache_dir cache --cpu --outfile x.csv"
INFO, NOTHING = "generate.py --model x.npz --cpu --info", lambda place: None
SCORE = f"evaluate.py --importance_samples 0 {FEW} --model"
FAKE = (("PYTHONPATH", "{x}/fake"),)
NO_WORDS = "class E(Exception):\n def __str__(self): raise TypeError\ndef snapshot_download(*a, **b):\n raise E"
TABLE = [
    *rows("sheets", sheets(3, 8192), FILM),
    *rows("sheets", sheets(60, 2000), FILM),
    *rows("depth", config("resnet.npz", depth=100), INFO),
    *rows("depth", config("resnet.npz", depth=3000), INFO),
    *rows("depth", config("resnet.npz", depth=100_000), INFO),
    *rows("TOML keys", text("a.toml", ("a.", 20_000), ("a = 1", 1)), "train.py --config a.toml"),
    *rows("TOML keys", text("a.toml", ("[", 1), ("a.", 20_000), ("a]\nb = 1", 1)), "train.py --config a.toml"),
    *rows("TOML keys", text("a.toml", ("x = {", 1), ("a .\t", 15_000), ("a = 1}", 1)), "train.py --config a.toml"),
    *rows("TOML keys", text("a.toml", ('"a".', 15_000), ("a = 1", 1)), "train.py --config a.toml"),
    *rows("TOML keys", text("a.toml", ("a.b.c = 1\n", 5000)), "train.py --config a.toml"),
    *(
        Row("model .", NOTHING, ("convert.py m.npz h/", f"cd h: {line}"))
        for line in (
            *(f"{SCORE} .", "encode.py --model . --cpu --limit 5", f"visualize.py report --model . {FEW}"),
            *("visualize.py curves --model .", f"train.py --like . {SIZE}"),
        )
    ),
    *rows("equal names", many_codes("c.csv", 2000, 2, lambda i: "a"), f"{DECODE} c.csv --outdir d"),
    *rows("equal names", many_codes("c.csv", 2000, 2, cased), f"{DECODE} c.csv --outdir d"),
    *rows("codes", many_codes("c.csv", 240_000, 64, str), f"{DECODE} c.csv"),
    *rows("codes", many_codes("c.csv", 2**20, 2, str), f"{DECODE} c.csv --names {' '.join(map(str, range(400)))}"),
    *rows("codes", many_codes("c.csv", 450_000, 2, lambda i: f"{i:012d}"), f"{DECODE} c.csv --names 000000000001"),
    *rows("codes", text("c.csv", ("mean_0,mean_1\n", 1), ("\n", 33 * 10**6)), f"{DECODE} c.csv"),
    *rows("long log", long_log, "visualize.py curves --logs long.jsonl --outfile a.png"),
    *rows("long log", dense_log, "visualize.py curves --logs long.jsonl --outfile a.png"),
    *rows("cache facts", cache_of_labels, CACHED),
    *rows("long class name", class_names("i" * 8000), "convert.py x.npz h/", SAMPLES),
    *rows("long class name", class_names("x" * 5000), "convert.py x.npz h/", SAMPLES),
    *rows("direction marks", class_names("\u202ea\u2029b"), "convert.py x.npz h/", SAMPLES),
    *rows(
        "four channels",
        config("big.npz", image_size=8, channels=4),
        *(f"{SCORE} x.npz", f"encode.py --model x.npz {FEW}", f"reconstruct.py --rec_testdata --model x.npz {FEW}"),
        *(f"visualize.py {kind} --model x.npz {FEW}" for kind in ("explorer", "latents", "report", "samples")),
        *("generate.py --model x.npz --cpu", "convert.py x.npz h/", "encode.py photos --model x.npz"),
    ),
    *rows("large numbers", config("resnet.npz", channels=2**31), INFO),
    *rows("large numbers", config("resnet.npz", channels=10**17), INFO),
    *rows("large numbers", config("bounded.npz", num_classes=10**12, classes=10**12, label_planes="one_hot"), INFO),
    *rows("few class names", class_names("a", only=True), "encode.py photos --model x.npz --label 2 --outfile c.csv"),
    *rows("odd paths", text("a.json", ('{"outdir": "a\\u0000b"}', 1)), f"train.py --config a.json {SIZE}"),
    *rows("odd paths", text("a.json", ('{"outdir": "\\ud800"}', 1)), f"train.py --config a.json {SIZE}"),
    *rows("odd paths", text("a.json", ('{"dataset": "folder:a\\u0000b"}', 1)), "train.py --config a.json"),
    *rows("odd paths", text("a.json", ('{"dataset": "folder:\\ud800"}', 1)), "train.py --config a.json"),
    *rows("odd paths", text("a.json", ('{"run_name": "\\ud800"}', 1)), f"train.py --config a.json {SIZE}"),
    *rows("odd hub", fake_hub("raise RuntimeError('x')"), "evaluate.py --model hf:a/b", variables=FAKE),
    *rows("odd hub", fake_hub(NO_WORDS), "evaluate.py --model hf:a/b", variables=FAKE),
    *rows("odd rank", NOTHING, "generate.py --model m.npz --cpu", variables=(("MLX_RANK", "9" * 5000),)),
    Row(
        "carriage return",
        pictures("a\rb.png", "c\nd.png", 'e",f.png'),
        ("encode.py pics --model m.npz --outfile c.csv", f"{DECODE} c.csv --outdir each"),
        three_pictures,
    ),
    Row("card", dataset_option("x\n```\n\n# INJECTED <img>"), ("convert.py x.npz h/",), no_injection),
    Row("card", dataset_option("folder:x\n```\n\n# INJECTED <img>"), ("convert.py x.npz h/",), no_injection),
    *rows("many entries", many_entries, INFO),
    *rows("deflated numbers", deflated_pth, "generate.py --model x.pth --cpu --info"),
    *rows("stray warnings", array_codes(np.full((3, 2), 1e300)), f"{DECODE} codes.npz"),
    *rows("stray warnings", array_codes(np.full((3, 2), 1 + 1j)), f"{DECODE} codes.npz"),
    *rows("stray warnings", old_header("codes.npz"), f"{DECODE} codes.npz"),
    *rows("stray warnings", old_header("x.npz"), INFO),
    Row("a person's part", persons_part, ("convert.py m.npz out/a.npz",), notes_kept),
    *rows(
        "little memory",
        NOTHING,
        "ulimit 390: generate.py --model m.npz --cpu",
        "ulimit 254: generate.py --model m.npz --cpu",
    ),
    *rows("notebook", NOTHING, f"-c {NOTEBOOK}"),
]


class Range:
    """A folder with good models and pictures, of which each row gets a copy."""

    def __init__(self, place: Path, tree: Path):
        self.start, self.place, self.tree = place / "start", place / "now", tree
        self.place.mkdir(parents=True)
        pictures(*(f"{i}.png" for i in range(5)))(self.place)
        (self.place / "pics").rename(self.place / "photos")
        for name, flags in (
            ("m", "--arch mlp --image_size 8"),
            ("big", "--arch mlp --image_size 16"),
            ("classes", "--arch mlp --image_size 64 --conditional"),
            ("resnet", "--arch resnet --image_size 8"),
            ("bounded", "--arch bounded --image_size 8 --conditional"),
        ):
            self.good(f"train.py {SIZE} {flags} --outdir {name}")
            next((self.place / name).glob("*.npz")).rename(self.place / f"{name}.npz")
            shutil.rmtree(self.place / name)
        lines = INFO.replace("x.npz", "m.npz"), f"{SCORE} m.npz", "generate.py --model m.npz --cpu --outfile x.png"
        self.base = [max(column) for column in zip(*(self.good(line)[2:] for line in (*lines, CACHED)), strict=True)]
        for name in ("x.png", "x.csv"):
            (self.place / name).unlink()
        shutil.copytree(self.place, self.start)

    def good(self, line):
        status, said, *used = self.type(line)
        assert status == 0, (line, status, said)
        return status, said, *used

    def type(self, line, variables=()):
        """Type a line; its status, its stderr, the seconds of processor time and the bytes of memory that it took."""
        where, limit, place = self.place, 0, str(self.place)
        if line.startswith("cd h: "):
            where, line = where / "h", line.removeprefix("cd h: ")
        if line.startswith("ulimit "):
            limit, line = int(line[7:10]) * 2**20, line[12:]
        code = line.startswith("-c ")
        words = ["-c", line[3:]] if code else line.split()
        words = words if code else [str(self.tree / words[0]), *words[1:]]
        kept = ("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR")
        known = {name: os.environ[name] for name in kept if name in os.environ} | {"VAE_DATA_DIR": "data"}
        known |= {"PYTHONPATH": str(self.tree)} | {name: value.format(x=place) for name, value in variables}

        def limited():
            resource.setrlimit(resource.RLIMIT_CPU, (STOP[0], STOP[0] + 1))
            if limit:
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        with open(self.place / "said", "wb") as said:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
            process = subprocess.Popen([sys.executable, *words], cwd=where, env=known, preexec_fn=limited, **streams)
        most, until = 0, time.monotonic() + 90
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            with suppress(OSError, IndexError, ValueError):
                shown = Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2]
                most = max(most, 1024 * int(shown.split()[0]))
            if most > STOP[1] or time.monotonic() > until:
                process.kill()
            time.sleep(0.005)
        process.returncode, used = os.waitstatus_to_exitcode(ended[1]), ended[2]
        text = (self.place / "said").read_text(errors="replace")
        return process.returncode, text, used.ru_utime + used.ru_stime, most

    def wrong(self, row: Row) -> str:
        """What is wrong with a row; empty if nothing is."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.start, self.place)
        row.make(self.place)
        for line in row.lines:
            status, said, seconds, memory = self.type(line, row.variables)
            lines, found = said.splitlines(), []
            if seconds > self.base[0] + SLOWEST:
                found.append(f"takes {seconds:.1f} s")
            if memory > self.base[1] + LARGEST:
                found.append(f"takes {memory / 2**20:.0f} MB")
            if "Traceback" in said or status not in (0, 2):
                found.append(f"ends with {status}: {lines[-1][:300] if lines else ''}")
            elif status == 2 and not (lines and lines[-1].startswith("error: ") and " — " in lines[-1]):
                found.append(f"says {lines[-1:]}")
            if any("Warning:" in text and ".py:" in text for text in lines):
                found.append("shows a warning of a library")
            if not found and line == row.lines[-1] and (why := row.check(self.place)):
                found.append(why)
            if not found and status == 2 and line != row.lines[-1]:
                found.append(f"{line} says {lines[-1]}")
            if found:
                return f"{line.partition(chr(10))[0][:100]}: {', '.join(found)}"
            self.last = f"{seconds:.1f} s, {memory / 2**20:.0f} MB, {lines[-1][:150] if lines else status}"
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1], help="checkout to attack")
    parser.add_argument("--only", default="", help="one kind")
    options = parser.parse_args()
    begun, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as place:
        tried = Range(Path(place), options.tree.resolve())
        for row in TABLE:
            if options.only in row.kind:
                wrong = tried.wrong(row)
                found.setdefault(row.kind, []).append(bool(wrong))
                print(f"{row.kind}: {'FAULT ' + wrong if wrong else tried.last}", flush=True)
    faulty = [kind for kind, rows in found.items() if any(rows)]
    print(f"{len(faulty)} of {len(found)} kinds found in {time.monotonic() - begun:.0f} s: {', '.join(faulty)}")
    sys.exit(bool(faulty))


if __name__ == "__main__":
    main()
