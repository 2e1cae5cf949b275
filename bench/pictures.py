"""python bench/pictures.py

Time the first pass over 20,000 JPEG files of CelebA's size and the next start; then alternating training steps on
CIFAR-10's and MNIST's images at 64×64, per floating-point operation. Needs no data; the images are generated.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
LOAD = (
    "import sys; from toolkit import datasets; "
    "s = datasets.load('folder:' + sys.argv[1], 'train', sys.argv[2]); print(len(s.images))"
)


def make_pictures(folder, count):
    """JPEG files of 178×218 pixels and about 6 KB, as in CelebA."""
    random = np.random.default_rng(0)
    for i in range(count):
        soft = Image.fromarray(random.integers(0, 256, (14, 11, 3), dtype=np.uint8)).resize((178, 218), Image.BICUBIC)
        rough = np.asarray(soft) + random.integers(-6, 7, (218, 178, 1))
        buffer = io.BytesIO()
        Image.fromarray(rough.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        (folder / f"{i:06d}.jpg").write_bytes(buffer.getvalue())
    return sum(path.stat().st_size for path in folder.iterdir()) / count


def time_pictures(count):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "pictures")
        folder.mkdir()
        size = make_pictures(folder, count)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", LOAD, folder, place], cwd=ROOT, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    decoded = count - -(-count // 10)
    print(f"\n{count} JPEG files of 178×218 pixels, {size / 1000:.1f} KB on average, to 64×64:")
    print(
        f"- first pass over the {decoded} of the training split: {times[0]:.1f} s, {decoded / times[0]:.0f} pictures/s"
    )
    print(f"- a later start, the whole process: {statistics.median(times[1:]):.2f} s")


def operations(channels, filters=64, side=64):
    """Multiplications of the convolutions in the forward pass, by the definition of the architecture."""
    a, b, c = filters // 4, filters // 2, filters
    encoder = (side // 2) ** 2 * channels * a + (side // 4) ** 2 * a * b + (side // 8) ** 2 * b * c
    decoder = (side // 4) ** 2 * c * b + (side // 2) ** 2 * b * a + side**2 * a * channels
    return 9 * (encoder + decoder)


def time_steps(rounds):
    from toolkit.machine import device

    name = device.start()
    import mlx.core as mx
    import mlx.optimizers as optim

    import vae
    from toolkit.architectures import ModelConfig, build
    from toolkit.model.inputs import to_floats

    steps = {}
    for data, side, channels in (("mnist", 28, 1), ("cifar-10", 32, 3)):
        model = build(ModelConfig(channels=channels))
        optimizer = optim.AdamW(learning_rate=0.001)
        optimizer.init(model.trainable_parameters())
        model.train()
        images = np.random.default_rng(0).integers(0, 256, (128, side, side, channels), dtype=np.uint8)
        steps[data] = (vae.training_step(model, optimizer), images, model, optimizer)
    times = {data: [] for data in steps}
    for i in range(rounds + 2):
        for data, (step, images, model, optimizer) in steps.items():
            start = time.perf_counter()
            for k in range(5):
                keys = mx.random.split(mx.random.key(k), len(images))
                x = to_floats(mx.array(images), model.config, keys)
                mx.eval(step(x, None, keys, 1), model.state, optimizer.state)
            if i >= 2:
                times[data].append((time.perf_counter() - start) / 5)
    share = operations(3) / operations(1)
    ratio = statistics.median(share * a / b for a, b in zip(times["mnist"], times["cifar-10"], strict=True))
    print(f"\nTraining step, batch 128, 64 filters, 64×64, on {name}:")
    for data, values in times.items():
        print(f"- {data}: {128 / statistics.median(values):.0f} images/s")
    print(f"- cifar-10's throughput per floating-point operation ÷ mnist's: {ratio:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="number of files")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of training steps")
    args = parser.parse_args()
    time_pictures(args.count)
    time_steps(args.rounds)
