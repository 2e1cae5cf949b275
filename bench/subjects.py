"""The subjects that throughput.py and residual.py time, each in its own process: this toolkit, the plain layers of its
ancestor, PyTorch.

A process reads lines of JSON, `[task, *shape, repeats]`, and answers each with the seconds of every repeat. Subjects of
throughput.py, with shapes `batch, filters, side`, have three stride-2 and three upsampling convolutions; those of
residual.py, with shapes `batch, width, depth, samples`, the residual architecture on images of 28×28. All compute in
float32.
"""

import json
import sys
import time
from pathlib import Path

DIMS = 8


def toolkit(batch, filters, side):
    """This toolkit as used by train.py, generate.py and reconstruct.py, on bytes of MNIST's size."""
    import mlx.core as mx
    import numpy as np

    import vae
    from toolkit.architectures import ModelConfig, build
    from toolkit.model.inputs import to_floats
    from toolkit.training.optimizers import AdamW

    config = ModelConfig(latent_dims=DIMS, max_filters=filters, image_size=side)
    model = build(config)
    optimizer = AdamW(learning_rate=0.001)
    optimizer.init(model.trainable_parameters())
    step, decode, reconstruct = vae.training_step(model, optimizer), model.decode, model.reconstruct
    images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28, 1), dtype=np.uint8)
    z = mx.random.normal((batch, DIMS))
    mx.eval(z)
    count = iter(range(10**9))

    def train():
        model.train()
        keys = mx.random.split(mx.random.key(next(count)), batch)
        mx.eval(step(to_floats(mx.array(images), model.config, keys), None, keys, 1), model.state, optimizer.state)

    def in_eval(function):
        model.eval()
        mx.eval(function())

    return {
        "train": train,
        "decode": lambda: in_eval(lambda: decode(z)),
        "reconstruct": lambda: in_eval(lambda: reconstruct(to_floats(mx.array(images), model.config))),
    }


def ancestor(batch, filters, side):
    """The MLX example: plain layers of mlx.nn, compiled, with MLX as installed."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            a, b, c = filters // 4, filters // 2, filters
            self.down = [nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in ((1, a), (a, b), (b, c))]
            self.down_norm = [nn.BatchNorm(o) for o in (a, b, c)]
            self.mu, self.log_var = (nn.Linear((side // 8) ** 2 * c, DIMS) for _ in range(2))
            self.linear = nn.Linear(DIMS, (side // 8) ** 2 * c)
            self.up = [nn.Conv2d(i, o, 3, padding=1) for i, o in ((c, b), (b, a), (a, 1))]
            self.up_norm = [nn.BatchNorm(o) for o in (b, a)]
            self.double = nn.Upsample(scale_factor=2, mode="nearest")

        def encode(self, x):
            for conv, norm in zip(self.down, self.down_norm, strict=True):
                x = nn.leaky_relu(norm(conv(x)))
            return self.mu(x.flatten(1)), self.log_var(x.flatten(1))

        def decode(self, z):
            h = self.linear(z).reshape(-1, side // 8, side // 8, filters)
            for conv, norm in zip(self.up, self.up_norm, strict=False):
                h = nn.leaky_relu(norm(conv(self.double(h))))
            return mx.sigmoid(self.up[2](self.double(h)))

    model = Model()
    optimizer = optim.AdamW(learning_rate=0.001)
    x, z = mx.random.uniform(shape=(batch, side, side, 1)), mx.random.normal((batch, DIMS))

    def loss(x):
        mean, log_var = model.encode(x)
        y = model.decode(mean + mx.exp(0.5 * log_var) * mx.random.normal(mean.shape))
        return mx.square(y - x).sum() + 0.5 * (mx.square(mean) + mx.exp(log_var) - 1 - log_var).sum()

    loss_and_gradients = nn.value_and_grad(model, loss)
    state = [model.state, optimizer.state, mx.random.state]

    def update(x):
        value, gradients = loss_and_gradients(x)
        optimizer.update(model, gradients)
        return value

    update = mx.compile(update, inputs=state, outputs=state)

    def train():
        model.train()
        mx.eval(update(x), state)

    def in_eval(function):
        model.eval()
        mx.eval(function())

    return {
        "train": train,
        "decode": lambda: in_eval(lambda: model.decode(z)),
        "reconstruct": lambda: in_eval(lambda: model.decode(model.encode(x)[0])),
    }


def torch_subject(channels_last, compiled):
    def make(batch, filters, side):
        import torch
        from torch import nn
        from torch.nn import functional as F

        a, b, c = filters // 4, filters // 2, filters
        grid = side // 8

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.down = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in ((1, a), (a, b), (b, c)))
                self.down_norm = nn.ModuleList(nn.BatchNorm2d(o) for o in (a, b, c))
                self.mu, self.log_var = nn.Linear(grid**2 * c, DIMS), nn.Linear(grid**2 * c, DIMS)
                self.linear = nn.Linear(DIMS, grid**2 * c)
                self.up = nn.ModuleList(nn.Conv2d(i, o, 3, 1, 1) for i, o in ((c, b), (b, a), (a, 1)))
                self.up_norm = nn.ModuleList(nn.BatchNorm2d(o) for o in (b, a))

            def encode(self, x):
                for conv, norm in zip(self.down, self.down_norm, strict=True):
                    x = F.leaky_relu(norm(conv(x)))
                return self.mu(x.flatten(1)), self.log_var(x.flatten(1))

            def decode(self, z):
                h = self.linear(z).view(-1, c, grid, grid)
                for conv, norm in zip(self.up, self.up_norm, strict=False):
                    h = F.leaky_relu(norm(conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))))
                return torch.sigmoid(self.up[2](F.interpolate(h, scale_factor=2.0, mode="nearest")))

            def loss(self, x):
                mean, log_var = self.encode(x)
                y = self.decode(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
                kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
                return ((y - x).square().sum() + kl) / len(x)

            def reconstruct(self, x):
                return self.decode(self.encode(x)[0])

        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = Model().to(memory_format=layout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        x = torch.rand(batch, 1, side, side).to(memory_format=layout)
        z = torch.randn(batch, DIMS)
        wrap = torch.compile if compiled else lambda function: function
        loss, decode, reconstruct = wrap(model.loss), wrap(model.decode), wrap(model.reconstruct)

        def train():
            model.train()
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()

        @torch.inference_mode()
        def in_eval(function, argument):
            model.eval()
            function(argument)

        return {
            "train": train,
            "decode": lambda: in_eval(decode, z),
            "reconstruct": lambda: in_eval(reconstruct, x),
        }

    return make


def residual_toolkit(batch, width, depth, samples):
    """This toolkit with --arch resnet, and with --objective iwae for more than one sample."""
    import mlx.core as mx
    import numpy as np

    import vae
    from toolkit.architectures import build, config_of
    from toolkit.model.inputs import to_floats
    from toolkit.model.objectives import Elbo, ImportanceWeighted
    from toolkit.training.optimizers import AdamW

    config = {"arch": "resnet", "max_filters": width, "depth": depth, "latent_dims": 32, "image_size": 28}
    model = build(config_of(config | {"likelihood": "bce"}))
    optimizer = AdamW(learning_rate=0.001)
    optimizer.init(model.trainable_parameters())
    model.train()
    objective = ImportanceWeighted(samples) if samples > 1 else Elbo()
    step = vae.training_step(model, optimizer, objective)
    images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28, 1), dtype=np.uint8)
    count = iter(range(10**9))

    def train():
        keys = mx.random.split(mx.random.key(next(count)), batch)
        mx.eval(step(to_floats(mx.array(images), model.config, keys), None, keys, 1), model.state, optimizer.state)

    return {"train": train}


def residual_torch(channels_last, compiled):
    def make(batch, width, depth, samples):
        import math

        import torch
        from torch import nn
        from torch.nn import functional as F

        narrow, dims = width // 2, 32

        class Block(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

            def forward(self, x):
                return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x))))

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.down1, self.down2 = nn.Conv2d(1, narrow, 3, 2, 1), nn.Conv2d(narrow, width, 3, 2, 1)
                self.up1, self.up2 = nn.Conv2d(width, narrow, 3, 1, 1), nn.Conv2d(narrow, 1, 3, 1, 1)
                stages = [nn.Sequential(*(Block(w) for _ in range(depth))) for w in (narrow, width, width, narrow)]
                self.stages = nn.ModuleList(stages)
                self.hidden1, self.hidden2 = nn.Linear(49 * width, 8 * width), nn.Linear(dims, 8 * width)
                self.mu, self.log_var = nn.Linear(8 * width, dims), nn.Linear(8 * width, dims)
                self.linear = nn.Linear(8 * width, 49 * width)

            def decode(self, z):
                h = self.linear(F.leaky_relu(self.hidden2(z))).view(-1, width, 7, 7)
                h = self.stages[2](h)
                h = self.stages[3](self.up1(F.interpolate(h, scale_factor=2.0, mode="nearest")))
                return self.up2(F.interpolate(F.leaky_relu(h), scale_factor=2.0, mode="nearest"))

            def loss(self, x):
                h = F.leaky_relu(self.stages[1](self.down2(self.stages[0](self.down1(x))))).flatten(1)
                h = F.leaky_relu(self.hidden1(h))
                mean, log_var = self.mu(h)[:, None], self.log_var(h)[:, None]
                eps = torch.randn(batch, samples, dims)
                z = mean + torch.exp(0.5 * log_var) * eps
                logits = self.decode(z.reshape(-1, dims)).view(batch, samples, -1)
                wanted = x.reshape(batch, 1, -1).expand(-1, samples, -1)
                error = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(2)
                if samples == 1:
                    return error.mean() + 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum() / batch
                log_w = -error - 0.5 * (z.square() - log_var - eps.square()).sum(2)
                return math.log(samples) - torch.logsumexp(log_w, 1).mean()

        torch.manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = Model().to(memory_format=layout).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        x = torch.rand(batch, 1, 28, 28).to(memory_format=layout)
        loss = torch.compile(model.loss) if compiled else model.loss

        def train():
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()

        return {"train": train}

    return make


SUBJECTS = {
    "toolkit": toolkit,
    "ancestor": ancestor,
    "torch": torch_subject(channels_last=False, compiled=False),
    "torch channels_last": torch_subject(channels_last=True, compiled=False),
    "torch compiled": torch_subject(channels_last=True, compiled=True),
    "toolkit resnet": residual_toolkit,
    "torch resnet": residual_torch(channels_last=False, compiled=False),
    "torch resnet channels_last": residual_torch(channels_last=True, compiled=False),
    "torch resnet compiled": residual_torch(channels_last=True, compiled=True),
}


def main(name, device_name):
    described = ""
    if name.startswith("toolkit"):
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from toolkit.machine import device

        described = device.start(cpu=device_name == "cpu")
    elif name == "ancestor":
        import mlx.core as mx

        if device_name == "cpu":
            mx.set_default_device(mx.cpu)
        described = f"mlx {mx.__version__}"
    else:
        import torch

        described = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(json.dumps(described), flush=True)
    tasks, made = {}, None
    for line in sys.stdin:
        task, *shape, repeats = json.loads(line)
        if shape != made:
            tasks, made = SUBJECTS[name](*shape), shape
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            tasks[task]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
