"""python bench/kinds.py

Time a training step by kind of work, on one core with half a batch of 64 images: matrix products, gathers of windows,
batch norm with its activation, other element-wise work, the optimizer, and building the graph in Python. Each kind is
timed on its own, with the shapes of the default model's step. Prints a Markdown table.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

import vae
from toolkit.architectures import ModelConfig, build
from toolkit.layers import cpu
from toolkit.machine import device, process
from toolkit.model.inputs import to_floats

IMAGES, ROUNDS = 64, 15
DOWN = ((64, 1, 16), (32, 16, 32), (16, 32, 64))  # side, channels in and out of the encoder's convolutions
UP = ((8, 64, 32), (16, 32, 16), (32, 16, 1))  # the same of the decoder's


def milliseconds(make):
    """The median time to evaluate the result of `make`, which is called in every round."""
    times = []
    for _ in range(ROUNDS + 3):
        arrays = make()
        start = time.perf_counter()
        mx.eval(arrays)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def random(*shape):
    array = mx.random.normal(shape)
    mx.eval(array)
    return array


def products():
    """All matrix products of the convolutions and linear layers, forward and backward."""
    total = 0.0
    for side, inputs, outputs in DOWN:
        rows, width = IMAGES * (side // 2) ** 2, 9 * inputs
        p, w, g = random(rows, width), random(outputs, width), random(rows, outputs)
        total += milliseconds(lambda p=p, w=w: p @ w.T) + milliseconds(lambda p=p, g=g: p.T @ g)
        if inputs > 1:  # the pixels of an image need no gradient
            q, k = random(IMAGES * (side // 2) ** 2, 4 * outputs), random(4 * outputs, 4 * inputs)
            total += milliseconds(lambda q=q, k=k: q @ k)
    for side, inputs, outputs in UP:
        if 4 * outputs > inputs:
            x, k = random(IMAGES * (side + 1) ** 2, 4 * inputs), random(4 * inputs, 4 * outputs)
        else:
            x, k = random(IMAGES * side**2, inputs), random(inputs, 16 * outputs)
        q, v = random(IMAGES * side**2, 9 * outputs), random(9 * outputs, inputs)
        flat = random(IMAGES * side**2, inputs)
        total += milliseconds(lambda x=x, k=k: x @ k) + milliseconds(lambda q=q, v=v: q @ v)
        total += milliseconds(lambda q=q, flat=flat: q.T @ flat)
    h, w, g = random(IMAGES, 4096), random(8, 4096), random(IMAGES, 8)
    total += 3 * (milliseconds(lambda: h @ w.T) + milliseconds(lambda: g @ w) + milliseconds(lambda: g.T @ h))
    return total


def gathers():
    """Gathering all windows, and turning cells into images."""
    total = 0.0
    for side, inputs, outputs in DOWN:
        x, g = random(IMAGES, side, side, inputs), random(IMAGES, side // 2, side // 2, outputs)
        total += milliseconds(lambda x=x: cpu.windows(x, 3, stride=2, before=1))
        if inputs > 1:
            cells = random(IMAGES * (side // 2) ** 2, 4 * inputs)
            total += milliseconds(lambda g=g: cpu.windows(g, 2, after=1))
            total += milliseconds(
                lambda cells=cells, side=side: mx.contiguous(cpu.cells_to_pixels(cells, IMAGES, side // 2, side // 2))
            )
    for side, inputs, outputs in UP:
        x, g = random(IMAGES, side, side, inputs), random(IMAGES, 2 * side, 2 * side, outputs)
        if 4 * outputs > inputs:
            cells = random(IMAGES * (side + 1) ** 2, 4 * outputs)
            total += milliseconds(lambda x=x: cpu.windows(x, 2, before=1, after=1))
            total += milliseconds(
                lambda cells=cells, side=side: mx.contiguous(
                    cpu.cells_to_pixels(cells, IMAGES, side + 1, side + 1)[:, 1:-1, 1:-1]
                )
            )
        total += milliseconds(lambda g=g: cpu.windows(cpu.sums_of_windows(g), 3, stride=2))
    return total


def norms():
    """Batch norm and leaky ReLU after five convolutions, forward and backward."""
    total = 0.0
    shapes = [(side // 2, outputs) for side, _, outputs in DOWN] + [(2 * side, outputs) for side, _, outputs in UP[:2]]
    for side, channels in shapes:
        norm, x, g = nn.BatchNorm(channels), random(IMAGES, side, side, channels), random(IMAGES, side, side, channels)

        total += milliseconds(lambda norm=norm, x=x, g=g: norm_gradients(norm, x, g))
        total -= milliseconds(lambda x=x, g=g: (x * g).sum())
    return total


def norm_gradients(norm, x, towards):
    """The gradient of one batch norm with its activation."""

    def loss(weight, bias, x):
        norm.weight, norm.bias = weight, bias
        return (cpu.norm_in_training(cpu.Parts([x]), norm)[0][0] * towards).sum()

    return mx.grad(loss, argnums=(0, 1, 2))(norm.weight, norm.bias, x)


def elementwise(model, images):
    """Work on pixels: converting bytes to floats of the model's size, and the error with its gradient."""
    logits = random(IMAGES, 64, 64, 1)
    x = to_floats(images, model.config)
    mx.eval(x)
    error = milliseconds(lambda: mx.grad(lambda logits: cpu.squared_error(x, logits).sum())(logits))
    return error + milliseconds(lambda: to_floats(images, model.config))


def main():
    name = device.start(cpu=True)
    process.cores = lambda: 1  # one stream
    cpu.streams.cache_clear()
    images = mx.array(np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8))
    model = build(ModelConfig())
    optimizer = optim.AdamW(learning_rate=0.001)
    optimizer.init(model.trainable_parameters())
    model.train()
    step = vae.training_step(model, optimizer)
    building, whole = [], []
    for i in range(ROUNDS + 3):
        start = time.perf_counter()
        keys = mx.random.split(mx.random.key(i), IMAGES)
        sums = step(to_floats(images, model.config), None, keys, mx.array(1.0))
        built = time.perf_counter()
        mx.eval(sums, model.state, optimizer.state)
        building.append(1e3 * (built - start))
        whole.append(1e3 * (time.perf_counter() - start))
    graph, total = (statistics.median(times[3:]) for times in (building, whole))
    kinds = {
        "matrix products": products(),
        "gathers of windows and cells": gathers(),
        "batch norm and leaky ReLU": norms(),
        "pixels: resize, sigmoid, error": elementwise(model, images),
        "building the graph in Python": graph,
    }
    print(
        f"On {name}; one core, {IMAGES} images: {total:.1f} ms a step.\n\n| kind of work | ms | share |\n|---|---|---|"
    )
    for kind, time_of in kinds.items():
        print(f"| {kind} | {time_of:.1f} | {time_of / total:.0%} |")
    rest = total - sum(kinds.values())
    print(f"| the rest: AdamW, latent vectors, biases, dispatch | {rest:.1f} | {rest / total:.0%} |")


if __name__ == "__main__":
    main()
