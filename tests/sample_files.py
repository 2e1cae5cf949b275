"""Images and data sets as files, and ways to damage them."""

import io
import resource
import struct
import tarfile
import zipfile
from contextlib import contextmanager

import numpy as np
from PIL import Image


def encode_idx(array):
    """A uint8 array as the bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def encode_jpeg(shade, size=(178, 218)):
    """A JPEG file of one shade of grey, as bytes."""
    return encode_image(Image.new("RGB", size, (shade, shade, shade)), "JPEG")


RED, GREEN, BLUE = (200, 30, 20), (10, 180, 40), (30, 20, 220)


def draw_tricolour():
    """A picture of 24×8 pixels: a red, a green and a blue square."""
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, :8], picture[:, 8:16], picture[:, 16:] = RED, GREEN, BLUE
    return Image.fromarray(picture)


def encode_image(picture, kind="PNG", **options):
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read_pixels(path):
    """The pixels of an image file, (H, W) or (H, W, C)."""
    with Image.open(path) as picture:
        return np.array(picture)


def make_celeb_a(tmp_path, zipped=True, partition=None, extra=()):
    """A data_dir with a small CelebA, zipped or as a folder; returns the folder of its files."""
    folder = tmp_path / "data" / "celeb-a"
    folder.mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 11)]
    if partition is None:  # seven to train, one to validate, two to test
        partition = "".join(f"{name} {code}\n" for name, code in zip(names, "0000000122", strict=True))
    (folder / "list_eval_partition.txt").write_text(partition)
    if zipped:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(f"img_align_celeba/{name}", encode_jpeg(20 * i))
            for name, data in extra:
                archive.writestr(name, data)
    else:
        (folder / "img_align_celeba").mkdir()
        for i, name in enumerate(names):
            (folder / "img_align_celeba" / name).write_bytes(encode_jpeg(20 * i))
    return folder


CIFAR_LABELS = {  # file → number of classes of each label that stands before the pixels
    "cifar-10": {**{f"data_batch_{i}.bin": (10,) for i in range(1, 6)}, "test_batch.bin": (10,)},
    "cifar-100": {"train.bin": (20, 100), "test.bin": (20, 100)},
}
CIFAR_FOLDERS = {"cifar-10": "cifar-10-batches-bin", "cifar-100": "cifar-100-binary"}


def make_cifar_files(name, count=7):
    """File → bytes of `count` random records, for every file of CIFAR-10 or CIFAR-100."""
    random = np.random.default_rng(0)
    files = {}
    for file, classes in CIFAR_LABELS[name].items():
        labels = [random.integers(0, c, (count, 1), dtype=np.uint8) for c in classes]
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[file] = np.concatenate([*labels, pixels], axis=1).tobytes()
    return files


def make_cifar_archive(data_dir, name="cifar-10", before=()):
    """The archive of a small CIFAR in its place; `before` are (name, bytes) of other members."""
    path = data_dir / name / f"{name}-binary.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    members = [(f"{CIFAR_FOLDERS[name]}/{file}", data) for file, data in make_cifar_files(name).items()]
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (*before, *members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_lying_zip(name, claim=1000, size=2**25, before=()):
    """A zip file with an entry of `size` zeros that claims to have `claim`; `before` are (name, bytes) of others."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, data in before:
            archive.writestr(other, data)
        archive.writestr(name, bytes(size))
        archive.filelist[-1].file_size = claim
    return buffer.getvalue()


def damage(data, others, random):
    """The bytes of a file with one to three random changes: a bit flipped, bytes replaced, the end cut off."""
    data = bytearray(data)
    for _ in range(random.integers(1, 4)):
        # Half of the damage goes to the ends, where the headers are.
        near = random.integers(0, 2)
        at = int(random.integers(0, min(400, len(data)) if near else len(data)))
        at = len(data) - 1 - at if near and random.integers(0, 2) else at
        match random.integers(0, 4):
            case 0:
                data[at] ^= 1 << int(random.integers(0, 8))
            case 1:
                data[at : at + 8] = random.bytes(len(data[at : at + 8]))
            case 2:
                data = data[:at] or bytearray(b"x")
            case 3:
                other = others[random.integers(0, len(others))]
                start = int(random.integers(0, len(other)))
                data[at : at + int(random.integers(1, 200))] = other[start : start + int(random.integers(1, 200))]
    return bytes(data)


@contextmanager
def limit_file_size(size):
    """Simulate a full disk: while the block runs, this process cannot write files of more than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
