"""python tests/pytorch/annealed.py --width 3 --dims 2

Makes the files of the β-annealed VAE beside this script, with PyTorch: two checkpoints as its train.py wrote them, and
what they compute. Written from the description of that system, not from its code. The tests do not need PyTorch.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
PLANES = {"none": 0, "cat": 1, "one_hot": 10}


class Encoder(nn.Module):
    def __init__(self, planes, width, dims):
        super().__init__()
        self.cnn1 = nn.Conv2d(1 + planes, width, 3, stride=2, padding=1)
        self.cnn2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.cnn3 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.dense = nn.Linear(64 * width, 2 * dims)
        self.mu_scale = nn.Parameter(torch.tensor(1.0))
        self.logv_scale = nn.Parameter(torch.ones(1, dims))

    def forward(self, x):
        for layer in (self.cnn1, self.cnn2, self.cnn3):
            x = torch.relu(layer(x))
        a, b = torch.chunk(self.dense(x.flatten(1)), 2, dim=1)
        log_var = torch.log(self.logv_scale * torch.sigmoid(b) + 1e-8)
        return self.mu_scale * (2 * torch.sigmoid(a) - 1), log_var


class Decoder(nn.Module):
    def __init__(self, width, dims):
        super().__init__()
        self.dense = nn.Linear(dims, 64 * width)
        self.cnn1 = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.cnn2 = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.cnn3 = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, z):
        h = nn.functional.pixel_shuffle(torch.relu(self.dense(z))[:, :, None, None], 8)
        return torch.sigmoid(self.cnn3(torch.relu(self.cnn2(torch.relu(self.cnn1(h))))))


class Model(nn.Module):
    def __init__(self, planes, width, decoder_width, dims):
        super().__init__()
        self.encoder, self.decoder = Encoder(planes, width, dims), Decoder(decoder_width, dims)
        for name, weights in self.named_parameters():
            if name.endswith(".weight"):
                nn.init.kaiming_normal_(weights, mode="fan_out", nonlinearity="relu")


class Criterion(nn.Module):
    def __init__(self, beta):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(beta), requires_grad=False)


def planes(x, labels, kind, factor):
    values = {"none": labels[:, :0], "cat": labels, "one_hot": torch.eye(10)[labels[:, 0]]}[kind]
    return torch.cat([x, factor * values[:, :, None, None].expand(-1, -1, 64, 64)], dim=1)


def make(name, kind, factor, likelihood, collapsed, width, decoder_width, dims):
    """Write a model whose numbers are nowhere trivial, after one step of its optimizer, with what it computes."""
    torch.manual_seed(0)
    model = Model(PLANES[kind], width, decoder_width, dims)
    with torch.no_grad():
        model.encoder.mu_scale.fill_(2.5)
        model.encoder.logv_scale.uniform_(1, 4)
        for layer in (model.decoder.dense, model.decoder.cnn1, model.decoder.cnn2, model.decoder.cnn3):
            layer.weight.mul_(3)  # else all pixels are nearly grey
            layer.bias.uniform_(-0.2, 0.2)
    steps = torch.arange(3 * 64 * 64, dtype=torch.float64)
    x = (torch.sin(steps * 0.37) * 0.5 + 0.5).reshape(3, 1, 64, 64).float()
    seen = planes(x, torch.tensor([[7], [0], [2]]), kind, factor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    mean, log_var = model.encoder(seen)
    loss = (model.decoder(mean) - x).square().sum() + 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum()
    loss.backward()
    optimizer.step()
    args = {"run_name": "my_run", "likelihood_type": likelihood, "hidden_dim": dims}
    args |= {"expand_dim_enc": width, "expand_dim_dec": decoder_width, "type_of_embedding": kind}
    args |= {"embed_factor": factor, "beta_max": 1.0, "runs_dir": "/home/me/runs", "model_version": "v1"}
    saved = {"epoch": 42, "model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    saved |= {"criterion_state_dict": Criterion(1.0).state_dict(), "test_loss": loss.item(), "args": args}
    torch.save(saved | {"posterior_collapse": collapsed}, HERE / f"{name}.pth")
    with torch.no_grad():
        mean, log_var = model.encoder(seen)
        z = torch.linspace(-3, 3, 3 * dims).reshape(3, dims)
        return {"mean": mean, "log_var": log_var, "pixels": model.decoder(z)[:, :, ::5, ::5]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--dims", type=int, required=True)
    args = parser.parse_args()
    for name, *what in (
        ("annealed_one_hot", "one_hot", 1.0, "mse", False, args.width, args.width),
        ("annealed_cat", "cat", 0.5, "bce", True, args.width, args.width - 1),
    ):
        made = make(name, *what, args.dims)
        np.savez_compressed(HERE / f"{name}.npz", **{key: array.numpy() for key, array in made.items()})
