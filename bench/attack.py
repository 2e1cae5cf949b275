"""python bench/attack.py --seconds 60 --seed 0

Broken and hostile files for every reader: checkpoints, states, logs, caches, data sets, pictures, latent vectors, files
of options, folders for the Hub, and a server that misbehaves. Each must load, or end in one line of ours, within
SLOWEST seconds and LARGEST bytes. Commands are killed, and Ctrl-C is pressed, at random moments: nothing may be lost,
nothing left behind once the command ran again. Command lines with inputs, outputs and values in any combination run
among a person's files: none of these may change, and no folder be read that only a file names.

What goes wrong is kept in --keep, with the number that makes it again: `--only TARGET --first NUMBER --count 1` with
the same seed makes the same file. Targets share the time equally.
"""

import argparse
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import crafted  # noqa: E402
from toolkit import datasets  # noqa: E402
from toolkit.architectures import ModelConfig  # noqa: E402
from toolkit.errors import UserError  # noqa: E402
from toolkit.files import download, writing  # noqa: E402
from toolkit.formats import checkpoint, codes, hub  # noqa: E402
from toolkit.machine import device  # noqa: E402
from toolkit.model.fitting import fit_prior  # noqa: E402
from toolkit.model.priors import Flow, FlowOptions  # noqa: E402
from toolkit.pictures.kinds import curves, film  # noqa: E402
from toolkit.shell import presets  # noqa: E402
from toolkit.training.folder import RunFolder  # noqa: E402
from toolkit.training.plan import TrainConfig, make_plan  # noqa: E402
from toolkit.training.trainer import Trainer  # noqa: E402

SLOWEST, LARGEST = 3, 300 * 2**20
ODD = (
    *(None, True, -1, 0, 10**30, 2**63, 1e308, math.nan, math.inf, 0.5, "", "x", "\x1b[31m\x07", "9" * 5000, [], {}),
    *([[]], [1, "2"], {"a": {}}, [None] * 50, "../../etc/passwd", "\ud800"),
)
CONFIG = {"max_filters": 8, "image_size": 8, "latent_dims": 2}
PLAN = make_plan({"dataset": "synthetic", "limit": 40, "epochs": 2} | CONFIG)


# Damage


def mutated(data, random):
    """Bytes with some flipped, replaced, cut away or repeated; half of the damage is near the ends."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(data) + 1))
        if random.integers(2):
            near = min(at, 300)
            at = near if random.integers(2) else len(data) - near
        match random.integers(5):
            case 0:
                data[at : at + 1] = random.bytes(1)
            case 1:
                data[at : at + 4] = random.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
            case 2:
                del data[at : at + int(random.integers(1, 100))]
            case 3:
                data[at:at] = data[at : at + int(random.integers(1, 100))]
            case 4:
                data = data[:at] or bytearray(b"x")
    return bytes(data)


def odd(value, random):
    """JSON of which one part is another one, or deep, or gone."""
    if isinstance(value, (dict, list)) and value and random.integers(5):
        value = type(value)(value)
        key = random.choice(list(value)) if isinstance(value, dict) else int(random.integers(len(value)))
        if isinstance(value, dict):
            key = str(key)
        if random.integers(6):
            value[key] = odd(value[key], random)
        else:
            del value[key]
        return value
    return ODD[random.integers(len(ODD))]


def text_of(value, random):
    text = json.dumps(value)
    return text if random.integers(20) else text[:-1] + ', "deep": ' + "[" * 100_000


BOMB = 2**29  # bytes; packed they are half a megabyte


def packed_bomb(wbits):
    packer = zlib.compressobj(9, wbits=wbits)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(BOMB // 2**20)) + packer.flush()


DEFLATED, GZIPPED = packed_bomb(-15), packed_bomb(31)


def zipped(entries, random):
    """A zip file, of which one entry may be a bomb, or lie about its size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        liar = random.integers(2 * len(entries))
        for i, (name, data) in enumerate(entries):
            is_bomb = i == liar and not random.integers(4)
            archive.writestr(name, DEFLATED if is_bomb else data)
            entry = archive.filelist[-1]
            if is_bomb:
                entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, BOMB
            if i == liar:
                entry.file_size = int(random.choice([0, 8, 1000, 2**31, len(data) + 1, entry.file_size]))
    return buffer.getvalue()


# Targets: each makes a file from random numbers, and gives it to its reader


class Targets:
    def __init__(self, place):
        self.place = place
        splits = [datasets.load("synthetic", split, None, 40) for split in ("train", "test")]
        self.trainer = Trainer(PLAN, *splits)
        with RunFolder(place / "run", PLAN) as run:
            run.begin(self.trainer, "CPU")
            for batch in self.trainer.batches():
                self.trainer.step(batch)
            run.save(self.trainer, self.trainer.end_epoch(), {})
            kept = run.without_sampler(self.trainer)
            kept.sampler = fit_prior("mixture", kept.model, splits[0])
            run.save_again(kept)
        self.run, self.model = run, run.model_file
        self.state, self.log = run.folder / "state.npz", run.folder / "log.jsonl"
        with_flow = checkpoint.load(self.model)
        config = with_flow.model.config
        with_flow.sampler = Flow(config.latent_dims, config.decoder_classes, FlowOptions(2, 4))
        checkpoint.save(place / "a.safetensors", with_flow)
        self.bytes = {path: path.read_bytes() for path in (self.model, self.state, self.log, place / "a.safetensors")}
        self.bytes[place / "a.pth"] = (ROOT / "tests/pytorch/vae.pth").read_bytes()
        self.remembered = (contents := checkpoint.read(self.state)).arrays(), contents.facts
        self.dataset, self.weights = splits[1], dict(checkpoint.read(place / "a.safetensors").arrays())
        self.hub = place / "hub"
        checkpoint.save_folder(self.hub, checkpoint.load(self.model), "card", b"")
        self.codes = codes.Codes([f"a{i}" for i in range(9)], np.ones((9, 2)), np.ones((9, 2)), ["x"] * 9)
        self.commands = Commands(place, self.model)
        self.home = Home(place / "home", self.model)
        self.range = crafted.Range(place / "range", ROOT)
        self.pets, kept = place / "pets", place / "kept"  # where no file is broken
        self.pets.mkdir()
        self.pictures = []
        pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "DDS", "ICO"):
            buffer = io.BytesIO()
            with contextlib.suppress(OSError, KeyError):  # what this Pillow was built without
                Image.fromarray(pixels).save(buffer, kind)
                self.pictures.append(buffer.getvalue())
        for i in range(12):
            (self.pets / f"{i}.png").write_bytes(self.pictures[0])
        shutil.copytree(self.pets, kept)

    def checkpoint(self, random):
        path = [path for path in self.bytes if path != self.log][random.integers(4)]
        (self.place / "x").write_bytes(mutated(self.bytes[path], random))
        checkpoint.load(self.place / "x")

    def archive(self, random):
        """Entries that lie, in files of both kinds."""
        path = self.place / "a.pth" if random.integers(2) else self.model
        with zipfile.ZipFile(path if path == self.model else io.BytesIO(self.bytes[path])) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        (self.place / "x").write_bytes(zipped(entries, random))
        checkpoint.load(self.place / "x")

    def hub_folder(self, random):
        """Weights without metadata, so that config.json is asked."""

        mx.save_safetensors(str(self.hub / hub.MODEL), {key: mx.array(array) for key, array in self.weights.items()})
        config = checkpoint.load(self.model).model.config.values()
        text = hub.config_text(config, ["a", "b"])
        if random.integers(2):
            text = text_of(odd(json.loads(text), random), random).encode()
        (self.hub / hub.CONFIG).write_bytes(text if random.integers(3) else mutated(text, random))
        checkpoint.load(self.hub)

    def latent_vectors(self, random):
        path = self.place / "codes.csv"
        if random.integers(2):
            data = codes.table(self.codes).encode()
            data += data[:-1].rpartition(b"\n")[2] * int(random.integers(3))
        else:
            with zipfile.ZipFile(io.BytesIO(codes.packed(self.codes))) as archive:
                data = zipped([(entry.filename, archive.read(entry)) for entry in archive.infolist()], random)
        path.write_bytes(mutated(data, random) if random.integers(3) else data)
        codes.load(path, 2)

    def options(self, random):
        """Files of options, in both formats."""
        values, ending = odd(PLAN.options(), random), "json"
        text = text_of(values, random)
        if isinstance(values, dict) and random.integers(2) and sys.version_info >= (3, 11):
            text, ending = "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()), "toml"
        path = self.place / f"options.{ending}"
        path.write_bytes(mutated(text.encode(), random) if random.integers(2) else text.encode())
        presets.read(path, (TrainConfig, ModelConfig))

    def facts(self, random):
        """Metadata that is wrong under a right checksum."""
        contents = checkpoint.read(self.model)
        facts = odd(contents.facts, random)
        packed = checkpoint.pack if random.integers(2) or not isinstance(facts, dict) else checkpoint.pack_safetensors
        arrays = contents.arrays()
        if packed is checkpoint.pack_safetensors:
            config = facts.get("config")  # its values are texts too, which MLX wants to be possible ones
            facts["config"] = config if isinstance(config, dict) and "\ud800" not in config.values() else {}
        if random.integers(3) == 0:
            name = f"sampler.{random.choice(['weights', 'means', 'scales'])}"
            arrays[name] = (arrays[name] * random.choice([0, -1, np.inf, np.nan, 1e30])).astype(np.float32)
        (self.place / "x").write_bytes(packed({key: mx.array(array) for key, array in arrays.items()}, facts))
        checkpoint.load(self.place / "x")

    def sparse(self, random):
        """Headers of .safetensors that claim what a sparse file seems to hold."""
        shape = [int(n) for n in random.integers(0, 40_000, random.integers(1, 4))]
        said = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
        text = json.dumps({"encoder.conv1.weight": said, "decoder.lin1.bias": odd(said, random)}).encode()
        with open(self.place / "x", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(min(8 + len(text) + 4 * math.prod(shape), 2**36))
        checkpoint.load(self.place / "x")

    def resume(self, random):
        arrays, facts = self.remembered
        data = checkpoint.pack(arrays, odd(facts, random)) if random.integers(3) else None
        self.state.write_bytes(data or mutated(self.bytes[self.state], random))
        with RunFolder(self.place / "run", PLAN, resume=True) as run:
            self.trainer.resume(run.state.model, run.state.optimizer, run.state.facts)

    def logs(self, random):
        lines = self.bytes[self.log].splitlines() * 3
        if random.integers(3):
            lines = [text_of(odd(json.loads(line), random), random).encode() for line in lines]
            self.log.write_bytes(b"\n".join(lines))
        else:
            self.log.write_bytes(mutated(b"\n".join(lines), random))
        curves.draw([self.log])

    def cache(self, random):
        def load():
            return datasets.load(f"folder:{self.pets}", "train", None, image_size=8, cache_dir=self.place / "cache")

        load()
        described = next((self.place / "cache").rglob("*.json"))
        path = described if random.integers(3) else described.with_suffix(".npy")
        if path == described and random.integers(4):
            path.write_text(text_of(odd(json.loads(path.read_text()), random), random))
        else:
            path.write_bytes(mutated(path.read_bytes(), random))
        split = load()
        assert len(split.images[:]) == len(split.labels if split.labels is not None else split.images)

    def picture(self, random):
        (self.place / "x.png").write_bytes(mutated(self.pictures[random.integers(len(self.pictures))], random))
        datasets.load_files([str(self.place / "x.png")], 8, 3)

    def picture_folder(self, random):
        data = self.pictures[random.integers(len(self.pictures))]
        (self.pets / "broken.png").write_bytes(mutated(data, random))
        datasets.load(f"folder:{self.pets}", "train", self.place / "data", image_size=8)

    def zip_of_pictures(self, random):
        archive = self.place / "pets.zip"
        with zipfile.ZipFile(archive, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
            for path in self.pets.iterdir():
                file.write(path, f"pets/{path.name}")
        archive.write_bytes(mutated(archive.read_bytes(), random))
        datasets.load(f"folder:{archive}", "train", self.place / "data", image_size=8)

    def factors(self, random):
        names = sorted(path.name for path in self.pets.iterdir())
        rows = ["file,hat", *(f"{name},{random.integers(3)}" for name in names)]
        (self.pets / "factors.csv").write_bytes(mutated("\n".join(rows).encode(), random))
        try:
            split = datasets.load(f"folder:{self.pets}", "train", self.place / "data", image_size=8)
            assert len(split.factors.numbers) == len(split.images)
        finally:
            (self.pets / "factors.csv").unlink()

    def sheets(self, random):
        """Sheets of a run, for a film."""
        for epoch in (1, 2):
            (self.run.folder / f"epoch_{epoch:04d}_samples.png").write_bytes(self.pictures[0])
        path = self.run.folder / f"epoch_{random.integers(1, 4):04d}_samples.png"
        path.write_bytes(mutated(self.pictures[0], random))
        try:
            film.animate([self.run.folder])
        finally:
            path.unlink()

    def mnist(self, random):
        folder = self.place / "data" / "mnist"
        folder.mkdir(parents=True, exist_ok=True)
        images = struct.pack(">IIII", 0x803, 9, 28, 28) + bytes(9 * 784)
        labels = struct.pack(">II", 0x801, 9) + bytes(9)
        for name, data in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
            data = data if random.integers(3) else mutated(data, random)
            data = gzip.compress(data, 1) + (b"" if random.integers(5) else GZIPPED)
            (folder / f"{name}.gz").write_bytes(data if random.integers(3) else mutated(data, random))
        datasets.load("mnist", "test", self.place / "data")

    def cifar(self, random):
        """A file of records, or an archive: that one must be the published one."""
        folder, record = self.place / "data" / "cifar-10", bytes(3073 * 3)
        folder.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress(tarfile.TarInfo("test_batch.bin").tobuf() + record, 1)
        for name, data in (("test_batch.bin", record), ("cifar-10-binary.tar.gz", packed)):
            (folder / name).unlink(missing_ok=True)
            if random.integers(2) or name.endswith("gz"):
                (folder / name).write_bytes(mutated(data, random) if random.integers(3) else data)
        datasets.load("cifar-10", "test", self.place / "data")

    def celeb_a(self, random):
        folder = self.place / "data" / "celeb-a"
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (178, 218)).save(buffer, "JPEG")
        data = zipped([(f"img_align_celeba/{i:06d}.jpg", buffer.getvalue()) for i in range(3)], random)
        (folder / "img_align_celeba.zip").write_bytes(data if random.integers(2) else mutated(data, random))
        text = "".join(f"{i:06d}.jpg {i % 2 * 2}\n" for i in range(3)).encode()
        (folder / "list_eval_partition.txt").write_bytes(text if random.integers(3) else mutated(text, random))
        datasets.load("celeb-a", "test", self.place / "data", image_size=8)

    def server(self, random):
        """A server of random habits; the file itself is right or wrong."""
        data = random.bytes(5000)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), misbehaving(data, random)) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                address = f"http://127.0.0.1:{server.server_port}/file"
                path = self.place / "downloads" / "file"
                download.download(path, [address] * 2, hashlib.sha256(data).hexdigest(), 10_000)
                assert path.read_bytes() == data
                path.unlink()
            finally:
                server.shutdown()
                thread.join()

    def lines(self, random):
        """Command lines, one after another, among the files of a person."""
        self.home.begin()
        for _ in range(random.integers(1, 4)):
            getattr(self.home, random.choice(Home.COMMANDS))(random)
            self.home.check()

    def crafted(self, random):
        """A file made on purpose, one of each kind that once did harm."""
        row = crafted.TABLE[random.integers(len(crafted.TABLE))]
        assert not (wrong := self.range.wrong(row)), f"{row.kind}: {wrong}"

    def kill(self, random):
        """A command that is killed, and run again."""
        command = self.commands.some(random)
        command.start(random)
        command.process.kill()
        command.process.wait()
        command.check(ended=False)
        command.run_again()

    def press(self, random):
        """Ctrl-C once, twice or three times; 130 or 0, and at most one line."""
        command = self.commands.some(random)
        command.start(random)
        for _ in range(random.integers(1, 4)):
            command.process.send_signal(signal.SIGINT)
            time.sleep(random.choice([0, 0.001, 0.02, 0.1]))
        status, said = command.end()
        lines = [line for line in said if not line.startswith("Warning: ")]
        assert status in (0, 130) and len(lines) <= 1, (command.words, status, said)
        command.check(ended=False)
        assert not command.parts(), f"{command.words} leaves {command.parts()}"


class Commands:
    """All commands on a small model, each with what it writes when nobody disturbs it."""

    def __init__(self, place, model):
        self.place, self.model, self.known = place, model, {}

    def some(self, random):
        small = ["--dataset", "synthetic", "--limit", "40"]
        size = ["--image_size", "8", "--max_filters", "8", "--latent_dims", "2", "--cpu"]
        of_model = ["--model", str(self.model), "--cpu"]
        of_folder = ["--dataset", f"folder:{self.place / 'kept'}", "--data_dir", "."]
        lines = {
            "train": ["train.py", *small, *size, "--epochs", "3", "--resume", "--outdir", "."],
            "folder": ["train.py", *size, *of_folder, "--epochs", "1", "--resume", "--outdir", "."],
            "generate": ["generate.py", *of_model, "--nsamples", "8", "--outfile", "a.png", "--outdir", "each"],
            "reconstruct": ["reconstruct.py", *of_model, *small, "--rec_testdata", "--outdir", "."],
            "encode": ["encode.py", *of_model, *small, "--outfile", "codes.npz", "--overwrite"],
            "evaluate": ["evaluate.py", *of_model, *small, "--importance_samples", "2", "--json", "a.json"],
            "traversal": ["visualize.py", "traversal", *of_model, *small, "--outfile", "a.gif"],
            "explorer": ["visualize.py", "explorer", *of_model, *small, "--nsamples", "9", "--outfile", "a.html"],
            "convert": ["convert.py", str(self.model), "a.safetensors", "--overwrite"],
            "hub": ["convert.py", str(self.model), "hub/"],
        }
        name = str(random.choice(list(lines)))
        if name not in self.known:
            self.known[name] = Command(self.place / "commands" / name, lines[name])
        return self.known[name]


class Home:
    """A folder with files of a person, of which commands may replace none."""

    COMMANDS = ("encode", "decode", "sample", "reconstruct", "evaluate", "visualize", "convert", "train")
    SIZE = "--image_size 8 --max_filters 4 --latent_dims 2 --limit 40 --cpu".split()
    FLAGS = ("beta", "beta_warmup", "beta_start", "free_bits", "lr", "lr_warmup", "weight_decay", "iw_warmup", "seed")

    def __init__(self, place, model):
        self.start, self.place, self.looked = place / "start", place / "now", []
        self.secret = str(self.place / "secret")  # a folder that no line names
        os.environ["VAE_DATA_DIR"] = str(place / "data")  # where the cache goes
        (self.start / "photos").mkdir(parents=True)
        (self.start / "secret").mkdir()
        for i in range(6):
            for folder, name in (("photos", f"{i}.png"), ("photos", f"img_{i:06d}.png"), ("secret", f"secret{i}.png")):
                Image.fromarray(np.full((9, 9, 3), 30 * i + len(name), np.uint8)).save(self.start / folder / name)
        shutil.copy(self.start / "photos" / "0.png", self.start / "photos" / "all.png")
        shutil.copy(model, self.start / "keep.npz")
        foreign = checkpoint.load(model)
        foreign.dataset = f"folder:{self.place}/secret"
        checkpoint.save(self.start / "foreign.npz", foreign)
        (self.start / "project").mkdir()
        for name in ("config.json", "samples.png", "README.md", "model.safetensors", "notes.csv", "page.html"):
            (self.start / "project" / name).write_text("{}")
        shutil.copy(self.start / "project" / "page.html", self.start / "report.html")
        shutil.copy(model, self.start / "read only.npz")
        self.begin()
        self.run("encode", "photos", "--model", "keep.npz", "--outfile", "codes.npz")
        shutil.copy(self.place / "codes.npz", self.start)
        sys.addaudithook(self.watch)

    def watch(self, event, args):
        if event in ("open", "os.scandir", "os.listdir") and str(args[0]).startswith(self.secret):
            self.looked.append(args[0])

    def begin(self):
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.start, self.place)
        (self.place / "read only.npz").chmod(0o444)
        (self.place / "link").symlink_to(".")
        theirs = (path for path in self.place.rglob("*") if path.is_file())
        self.theirs = {path: hashlib.sha1(path.read_bytes()).digest() for path in theirs}

    def run(self, command, *words):
        """Type a line in this folder; the status and the lines on stderr."""
        import importlib

        self.line, before = " ".join([command, *words]), os.getcwd()
        self.looked.clear()
        os.chdir(self.place)
        said = io.TextIOWrapper(io.BytesIO())
        try:
            with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())), contextlib.redirect_stderr(said):
                importlib.import_module(command).main(list(words))
            status = 0
        except SystemExit as end:
            status = end.code
        finally:
            os.chdir(before)
            looked = set(map(str, self.looked))
        assert not looked, f"{self.line} opens {looked}"
        said.flush()
        lines = said.buffer.getvalue().decode().splitlines()
        assert status in (0, 2) and (status == 0 or lines[-1].startswith("error: ")), (self.line, status, lines)
        return status, lines

    def check(self):
        """Nothing of the person's has changed."""
        for path, digest in self.theirs.items():
            same = path.is_file() and hashlib.sha1(path.read_bytes()).digest() == digest
            assert same, f"{self.line} replaces {path.relative_to(self.place)}"

    # Words of a line

    def some(self, random, *words):
        return str(random.choice(words))

    def named(self, random, name):
        """A name, spelled in one of many ways."""
        ways = ["{0}", "{0}", "{1}/{0}", "./link/{0}", "photos/../{0}", "/proc/self/cwd/{0}", "/proc/self/root{1}/{0}"]
        return self.some(random, *ways).format(name, self.place)

    def model(self, random):
        return ["--model", self.named(random, self.some(random, "keep.npz", "keep.npz", "foreign.npz")), "--cpu"]

    def outfile(self, random, *endings):
        there = [str(path.relative_to(self.place)) for path in self.theirs if path.parent.name != "secret"]
        fitting = [name for name in there if name.endswith(endings)]
        new = [self.some(random, "", "photos/", "project/") + f"new{ending}" for ending in endings]
        return self.named(random, self.some(random, *there[:1], *fitting, *fitting, *new))

    def outdir(self, random):
        return self.named(random, self.some(random, "photos", "photos", "project", "new", ".", "models"))

    def data(self, random):
        return self.some(random, "synthetic", "folder:photos", "folder:./photos")

    # Lines

    def encode(self, random):
        what = ["photos"] if random.integers(2) else []
        out = self.outfile(random, ".npz", ".csv")
        self.run("encode", *what, *self.model(random), "--outfile", out)

    def decode(self, random):
        out = ["--outdir", self.outdir(random)] if random.integers(4) else ["--outfile", self.outfile(random, ".png")]
        self.run("generate", "--model", "keep.npz", "--codes", "codes.npz", *out)

    def sample(self, random):
        out = ["--outdir", self.outdir(random)] if random.integers(2) else ["--outfile", self.outfile(random, ".png")]
        self.run("generate", *self.model(random), "--nsamples", "7", *out)

    def reconstruct(self, random):
        what = ["--images", "photos"] if random.integers(2) else ["--rec_testdata", "--limit", "5"]
        self.run("reconstruct", *self.model(random), *what, "--outdir", self.outdir(random))

    def evaluate(self, random):
        few = ["--limit", "9", "--importance_samples", "0"]
        self.run("evaluate", *self.model(random), *few, "--json", self.outfile(random, ".json", ".npz"))

    def visualize(self, random):
        kind = self.some(random, "samples", "traversal", "latents", "report", "explorer")
        out = ["--outfile", self.outfile(random, ".html" if kind in ("report", "explorer") else ".png")]
        few = [] if kind == "samples" else ["--limit", "9"]
        self.run("visualize", kind, *self.model(random), *few, *out)

    def convert(self, random):
        out = self.outdir(random) + "/" if random.integers(2) else self.outfile(random, ".npz", ".safetensors")
        self.run("convert", self.named(random, self.some(random, "keep.npz", "read only.npz")), out)

    def train(self, random):
        """A run, and some epochs more, in the same place by another name."""
        place, value = self.some(random, "models", "photos/models", "project"), 10.0 ** random.uniform(-9, 200)
        value = int(value) if value < 1e9 else f"{value:g}"
        flags = [*self.SIZE, "--dataset", self.data(random), "--data_dir", self.named(random, "data")]
        flags += [] if random.integers(2) else [f"--{self.some(random, *self.FLAGS)}", str(value)]
        status, said = self.run("train", *flags, "--epochs", "1", "--outdir", self.named(random, place))
        runs = list(self.place.rglob("state.npz"))
        if status:
            assert not any(word in " ".join(said) for word in ("damaged", "Traceback")), (self.line, said)
        elif checkpoint.load_state(runs[0]).facts["epoch"] == 1 and len(runs) == 1:
            status, said = self.run("train", *flags, "--epochs", "2", "--resume", "--outdir", self.named(random, place))
            assert status == 0 or "the loss became" in " ".join(said), (self.line, said)
        for state in self.place.rglob("state.npz"):
            done, folder = checkpoint.load_state(state).facts["epoch"], state.parent
            log = (folder / "log.jsonl").read_text().splitlines() if done else []
            sheets = [int(path.name[6:10]) for path in folder.glob("epoch_*_samples.png")]
            whole = list(range(1, done + 1))
            numbers = [number for number in (json.loads(line)["epoch"] for line in log) if number]
            assert numbers == whole == sorted(sheets), (self.line, done, numbers, sheets)
            if done:
                checkpoint.load(folder.with_suffix(".npz"))


class Command:
    def __init__(self, folder, words):
        self.folder, self.words = folder, words
        self.launch(folder / "whole")
        begun, (status, said) = time.monotonic(), self.end()
        assert status == 0, (words, status, said)
        self.seconds, self.whole = time.monotonic() - begun, self.files()

    def launch(self, place):
        """Begin, and wait until Python has come to our code: what happens before is not our doing."""
        self.at = place
        place.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-X", "importtime", ROOT / self.words[0], *self.words[1:]]
        nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen(words, cwd=place, stderr=said, **nothing)
        while self.process.poll() is None and not any(line.endswith("| toolkit") for line in self.lines()):
            time.sleep(0.001)

    def lines(self):
        return (self.folder / "said").read_text(errors="replace").splitlines()

    def end(self):
        """The status that it ends with, and the lines that it has said."""
        status = self.process.wait()
        return status, [line for line in self.lines() if not line.startswith("import time:")]

    def start(self, random):
        """Begin in an empty folder, or in one where an earlier one has ended, and wait for a random moment."""
        shutil.rmtree(self.folder / "some", ignore_errors=True)
        if not random.integers(3):
            shutil.copytree(self.folder / "whole", self.folder / "some")
        self.launch(self.folder / "some")
        time.sleep(self.seconds * random.uniform(0, 1.1))

    def files(self):
        """What is there, without what holds times."""
        found = {str(path.relative_to(self.at)): path for path in self.at.rglob("*") if path.is_file()}
        return {
            name: b"" if path.suffix in (".jsonl", ".json") else path.read_bytes()
            for name, path in found.items()
            if not path.name.startswith(writing.PART)
        }

    def parts(self):
        return [path.name for path in self.at.rglob(f"{writing.PART}*")]

    def check(self, ended=True):
        """Whatever is there is whole: of a run that goes on, a state that can be read."""
        there = self.files()
        for name, data in there.items():
            if self.words[0] == "train.py" and not ended:
                if name.endswith("state.npz"):
                    checkpoint.load_state(self.at / name)
                elif name.endswith(".npz"):
                    checkpoint.load(self.at / name)
            else:
                assert name.endswith(".html") or data == self.whole[name], f"{name} of {self.words} differs"
        if ended:
            assert there.keys() == self.whole.keys() and not self.parts(), (self.words, there.keys(), self.parts())

    def run_again(self):
        self.launch(self.at)
        status, said = self.end()
        assert status == 0, (self.words, status, said)
        self.check()


HEADERS = (
    *("Content-Length: 5000", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: x"),
    *("Transfer-Encoding: chunked", "Content-Range: bytes 7-4999/5000", "Content-Range: bytes 0-", "Location: /file"),
    *("Location: file:///etc/passwd", "X: " + "x" * 70_000, "Content-Encoding: gzip", "\x1b[31m: \x07"),
)
STATUS = ("200 OK", "206 Partial", "200 \x1b[31mred", "404 no", "416 no", "302 go", "301 go", "999", "x", "100 wait")


def misbehaving(data, random):
    status = STATUS[0] if random.integers(2) else STATUS[random.integers(len(STATUS))]
    headers = [HEADERS[i] for i in random.integers(0, len(HEADERS), random.integers(0, 3))]
    body = data if random.integers(2) else mutated(data, random)
    body = b"5\r\nabcde\r\n" * 5000 if not random.integers(8) else body
    pause = 0 if random.integers(10) else 0.1

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                self.connection.recv(2**16)
                answer = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body
                for i in range(0, 20 if pause else 0):
                    self.connection.sendall(answer[i : i + 1])
                    time.sleep(pause)
                self.connection.sendall(answer[20 if pause else 0 :])

    return Handler


# The attack


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one target")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--count", type=int, default=10**9, help="files at most")
    parser.add_argument("--keep", default="attack", help="folder for what was found")
    options = parser.parse_args()
    device.start(cpu=True)
    download.TIMEOUT, download.WINDOW, download.TRIES = 0.5, 0.5, 2
    place = Path(tempfile.mkdtemp())
    try:
        found = attack(Targets(place), options)
    finally:
        shutil.rmtree(place)
    sys.exit(1 if found else 0)


def attack(targets, options):
    """Files until the time is up; returns what was found."""
    names = [options.only] if options.only else [name for name in vars(Targets) if not name.startswith("_")]
    ended, found, number, spent = Counter(), [], options.first, dict.fromkeys(names, 0.0)
    slowest = largest = 0
    until = time.monotonic() + options.seconds
    while time.monotonic() < until and number < options.first + options.count:
        name = min(spent, key=spent.get)
        random = np.random.default_rng([options.seed, number])
        peak()
        begun, before, start = time.monotonic(), peak(), time.process_time()  # a busy machine is not our fault
        try:
            with contextlib.redirect_stdout(io.StringIO()), hang_after(20):
                getattr(targets, name)(random)
            ended[f"{name}: loads"] += 1
            wrong = ""
        except UserError as error:
            ended[f"{name}: one line"] += 1
            wrong = "" if " — " in str(error) and len(str(error)) < 1000 else f"says {error}"
        except BaseException:
            wrong = traceback.format_exc()
        seconds, grown = time.process_time() - start, peak() - before
        if seconds > SLOWEST:
            wrong += f"takes {seconds:.1f} s"
        if grown > LARGEST:
            wrong += f"takes {grown / 2**20:.0f} MB"
        slowest, largest = max(slowest, seconds), max(largest, grown)
        spent[name] += time.monotonic() - begun
        if wrong:
            found.append(f"{name} {number}: {wrong}")
            print(found[-1], flush=True)
            os.makedirs(options.keep, exist_ok=True)
            Path(options.keep, f"{name}_{number}.txt").write_text(wrong)
        number += 1
    for what, count in sorted(ended.items()):
        print(f"{count:7,} {what}")
    print(f"{number - options.first:,} files; at most {slowest:.1f} s and {largest / 2**20:.0f} MB; {len(found)} found")
    for what in found:  # once more, as the end of a long log is what is read
        print(what)
    return found


def peak():
    """The most memory that this process had since the last call where the system can tell, or else ever, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        most = 1024 * int(status.partition("VmHWM:")[2].split()[0])
        Path("/proc/self/clear_refs").write_text("5")
    return most


@contextlib.contextmanager
def hang_after(seconds):
    def give_up(*_):
        raise TimeoutError(f"it hangs for {seconds} seconds")

    signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


if __name__ == "__main__":
    main()
