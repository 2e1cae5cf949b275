"""How the toolkit runs on this machine: whether its numbers are right, and how fast it is. doctor.py shows it."""

import itertools
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

import vae
from toolkit.architectures import ModelConfig, build
from toolkit.datasets import Split
from toolkit.layers import cpu, forms, plain
from toolkit.machine.process import on_cpu
from toolkit.model.inputs import to_floats
from toolkit.training.plan import make_plan
from toolkit.training.trainer import Trainer

IMAGES, SIDE, CHANNELS = 16, 8, 16  # of the layers' inputs
FEW = 8  # images in a batch of the textbook layers on a CPU, where they are slow
SECONDS = 3  # for each speed

IN_PHASES = SimpleNamespace(**vars(plain) | {"up": plain.up_in_phases})  # plain.py with its second way to upsample


# Agreement


class Layers(nn.Module):
    """The modules that the layers take."""

    def __init__(self):
        super().__init__()
        self.conv, self.strided = nn.Conv2d(CHANNELS, 32, 3, padding=1), nn.Conv2d(CHANNELS, 32, 3, 2, 1)
        self.transposed = [nn.ConvTranspose2d(CHANNELS, 32, size, 2, 1) for size in (3, 4)]
        self.same = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2)]
        self.norm, self.linear = nn.BatchNorm(32), nn.Linear(SIDE * SIDE * CHANNELS, 32)


def pixels(x: mx.array) -> mx.array:
    """Pixels from 0 to 1 that do not depend on x."""
    return mx.random.uniform(shape=x.shape, key=mx.random.key(2))


CALLS: dict[str, Callable] = {  # of each layer, with a form, the modules, and images with values around 0
    "down": lambda form, own, x: form.down(x, own.strided, own.norm),
    "up": lambda form, own, x: form.up(x, own.conv, own.norm),
    "conv_transpose 3×3": lambda form, own, x: form.conv_transpose(x, own.transposed[0], own.norm),
    "conv_transpose 4×4": lambda form, own, x: form.conv_transpose(x, own.transposed[1], own.norm),
    "conv": lambda form, own, x: form.conv(x, own.conv),
    "conv, stride 2": lambda form, own, x: form.conv(x, own.strided),
    "residual": lambda form, own, x: form.residual(x, *own.same),
    "rectify": lambda form, own, x: form.rectify(x),
    "dense": lambda form, own, x: form.dense(form.flatten(x), own.linear, nn.leaky_relu),
    "dense, linear": lambda form, own, x: form.dense(form.flatten(x), own.linear),
    "heads": lambda form, own, x: mx.concatenate(form.heads(form.flatten(x), own.linear, own.linear), axis=1),
    "sigmoid": lambda form, own, x: form.sigmoid(x),
    "squared_error": lambda form, own, x: form.squared_error(pixels(x), x)[:, None],
    "cross_entropy": lambda form, own, x: form.cross_entropy(pixels(x), x)[:, None],
    "level_error": lambda form, own, x: form.level_error(pixels(x), x, 0.1 * x, 256)[:, None],
}


def layer_differences() -> dict[str, float]:
    """The largest relative difference between the two forms of each layer: results and gradients, in both modes.

    The CPU form always runs on the CPU; the textbook one on the default device. The second way to upsample is among
    the layers.
    """
    apart = {name: layer_difference(call) for name, call in CALLS.items()}
    return apart | {"up in four phases": layer_difference(CALLS["up"], IN_PHASES)}


def layer_difference(call: Callable, textbook: Any = plain) -> float:
    """The same for one call."""
    own, x = Layers(), mx.random.normal((IMAGES, SIDE, SIDE, CHANNELS), key=mx.random.key(0))
    mx.eval(own.parameters())

    def results(form, training):
        own.train(training)

        def loss(parameters, x):
            own.update(parameters)
            y = form.join(form.flatten(call(form, own, x)))
            return (y * mx.random.normal(y.shape, key=mx.random.key(1))).sum(), y

        weights = own.trainable_parameters()
        (_, y), gradients = mx.value_and_grad(loss, argnums=(0, 1))(weights, x)
        own.update(weights)
        return [y, *(array for _, array in tree_flatten(gradients))]

    return max(difference(lambda form, mode=mode: results(form, mode), textbook) for mode in (True, False))


def difference(results: Callable[[Any], list[mx.array]], textbook: Any = plain) -> float:
    """The largest difference between the arrays of a textbook form and of the CPU form, relative to their size."""
    theirs = [np.array(array) for array in results(textbook)]
    with mx.stream(mx.cpu):
        ours = [np.array(array) for array in results(cpu)]
    pairs = ((np.abs(a - b).max(), np.abs(a).max()) for a, b in zip(theirs, ours, strict=True))
    return float(max(apart / max(size, 1e-3) for apart, size in pairs))


def model_difference(model: vae.VAE) -> float:
    """The same for a model in eval mode: its images from some latent vectors, and the posteriors of these images."""
    model.eval()
    config = model.config
    z = mx.random.normal((FEW, config.latent_dims), key=mx.random.key(0))
    labels = mx.arange(FEW, dtype=mx.int32) % config.num_classes if config.num_classes else None

    def results(form):
        with forms.using(form):
            images = model.likelihood.mean(model.decoder(z, labels))
            return [images, *model.posterior(images, labels)]

    return difference(results)


# Speed


def speeds() -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of the speeds of the default model, and of what its training needs."""
    yield from training("training")
    yield "peak memory of training", mx.get_peak_memory() / 2**20, "MiB"
    yield from inference()
    if on_cpu():
        yield from training("training, textbook layers", plain, batchsize=FEW)
        yield from training("training, textbook layers, four-phase upsampling", IN_PHASES, batchsize=FEW)
        return
    yield from training("training, four-phase upsampling", IN_PHASES)
    mx.disable_compile()
    try:
        yield from training("training, not compiled", is_compiled=False)
        yield from training("training, four-phase upsampling, not compiled", IN_PHASES, is_compiled=False)
    finally:
        mx.enable_compile()


def training(name: str, form: Any = None, is_compiled: bool = True, **options: Any) -> Iterator[tuple[str, float, str]]:
    """Train the default model on noise as train.py does: its speed and, if it is compiled, how often it was traced."""
    plan = make_plan(options | {"epochs": 10**6})
    noise = np.random.default_rng(0).integers(0, 256, (8 * plan.train.batchsize, 28, 28, 1), np.uint8)
    split = Split(noise, None, len(noise))
    trainer, traces = Trainer(plan, split, split), []

    def objective(*arguments):
        traces.append(arguments)  # in a compiled step Python runs once for each trace
        return vae.elbo(*arguments)

    trainer.updates["elbo"] = vae.training_step(trainer.model, trainer.optimizer, objective)
    batches = itertools.chain.from_iterable(trainer.batches() for _ in itertools.count())
    mx.reset_peak_memory()
    with forms.using(form):
        yield name, per_second(lambda: trainer.step(next(batches)), trainer.batch_size), "images/s"
        trainer.wait()
    if is_compiled and not on_cpu():
        yield f"traces of {name}", len(traces), ""


def inference() -> Iterator[tuple[str, float, str]]:
    """Decode and reconstruct with the default model."""
    model, count = build(ModelConfig()).eval(), 128
    z = mx.random.normal((count, model.config.latent_dims))
    images = mx.array(np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8))
    mx.eval(z, model.parameters())
    yield "decoding", per_second(lambda: mx.eval(model.decode(z)), count), "images/s"

    def reconstruct():
        mx.eval(model.reconstruct(to_floats(images, model.config)))

    yield "reconstructing", per_second(reconstruct, count), "images/s"


def per_second(work: Callable[[], Any], count: int) -> float:
    """Images per second, if each call of `work` handles `count`: the median of its calls, after two to warm up."""
    times = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return count / float(np.median(times[2:]))
