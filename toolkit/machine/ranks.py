"""Processes that compute together under mlx.launch: their number, shares and sums.

Each process is a rank and runs the whole command; only rank 0 prints and writes. Sums use mx.distributed with any
backend (ring, MPI, JACCL, NCCL). In a single process, all functions here return their arguments and cost nothing.
"""

import functools
import json
import platform
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

import toolkit
from toolkit.errors import RankError, UserError
from toolkit.machine import process
from toolkit.machine.process import waiting

rank, size = 0, 1  # of this process; number of processes
LONGEST = 120  # seconds for all ranks to join
leads = True  # whether this is the first rank on its host


def join() -> None:
    """Join the other ranks, if any, and share this machine's cores among those that run on it."""
    global rank, size, leads
    if process.launched_as() is None:
        return
    # Python cannot run while MLX waits for other ranks, so signals get their default action: to end the process.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.alarm(LONGEST)
    try:
        group = mx.distributed.init()
    except (RuntimeError, ValueError) as error:
        ways = "check that all of them started and that the port is free (mlx.launch -p sets another)"
        raise UserError(f"the ranks cannot connect: {error} — {ways}") from None
    finally:
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    rank, size = group.rank(), group.size()
    if size > 1:
        host = zlib.crc32(platform.node().encode())  # a collision of two names only leaves cores idle
        hosts = gather(np.array([host], np.uint32), size)
        process.neighbours, leads = int((hosts == host).sum()), int(np.argmax(hosts == host)) == rank
        versions = {"version of MLX": mx.__version__, "version of this toolkit": version()}
        check_same(versions, "install the same packages and check out the same commit on every host")


def version() -> str:
    """The toolkit's version, with a checksum of its Python files."""
    root, checksum = Path(toolkit.__file__).parents[1], 0
    for path in sorted((*root.glob("*.py"), *root.glob("toolkit/**/*.py"))):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return f"{toolkit.__version__} ({checksum:08x})"


# Shares


def share(values: Any) -> Any:
    """This rank's share of an array or list: consecutive elements, about the same number on each rank."""
    return values[len(values) * rank // size : len(values) * (rank + 1) // size]


def gather(own: np.ndarray, count: int) -> np.ndarray:
    """The whole array of `count` elements, from the `share` of each rank, bit for bit."""
    if size == 1:
        return own
    whole = np.zeros((count, *own.shape[1:]), own.dtype)
    share(whole)[:] = own
    # Each sum is that of one value and zeros.
    return total(whole.reshape(-1).view(np.uint32)).view(own.dtype).reshape(whole.shape)


def broadcast(value: Any) -> Any:
    """The value of rank 0 on all ranks; any value that JSON can represent."""
    if size == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode() if rank == 0 else b"", np.uint8)
    numbers = np.zeros(int(total(np.array([len(text)], np.uint32))[0]), np.uint32)
    numbers[: len(text)] = text
    return json.loads(total(numbers).astype(np.uint8).tobytes())


def broadcast_arrays(tree: Any) -> Any:
    """The arrays of rank 0's tree on all ranks."""
    if size > 1:
        tree = tree_map(lambda array: all_sum(array if rank == 0 else mx.zeros_like(array)), tree)
        with waiting():
            mx.eval(tree)  # now: all ranks must communicate in the same order
    return tree


# Sums


def all_sum(x: mx.array) -> mx.array:
    """The sum of an array over all ranks."""
    return mx.distributed.all_sum(x) if size > 1 else x


def total(values: np.ndarray) -> np.ndarray:
    """`all_sum` for NumPy arrays, computed at once."""
    with waiting():
        return np.array(all_sum(mx.array(values)))


def differentiable_sum(x: mx.array) -> mx.array:
    """`all_sum` for use in a loss: its gradient is the sum of the gradients of all ranks."""
    if size == 1:
        return x
    forward = mx.custom_function(all_sum)
    forward.vjp(lambda _, gradient, __: all_sum(gradient))
    return forward(x)


def mean(x: mx.array) -> mx.array:
    """The mean over the rows of all ranks, (N, D) → (D,), for use in a loss."""
    if size == 1:
        return x.mean(axis=0)
    rows = mx.full((1,), len(x), dtype=x.dtype)
    sums = differentiable_sum(mx.concatenate([x.sum(axis=0), rows]))
    return sums[:-1] / sums[-1]


def sum_gradients(tree: Any) -> Any:
    """The sums over all ranks of the arrays in a tree, sent as one array."""
    if size == 1:
        return tree
    arrays = [array for _, array in tree_flatten(tree)]
    sums = all_sum(mx.concatenate([array.reshape(-1) for array in arrays]))
    parts = iter(mx.split(sums, np.cumsum([array.size for array in arrays])[:-1].tolist()))
    return tree_map(lambda array: next(parts).reshape(array.shape), tree)


# Turns and errors


def leader_first(load: Callable[[], Any]) -> Any:
    """The result of `load`, called on the first rank of each host, then on the others, which find its cache."""
    result = None
    for turn in (True, False):
        with fail_together():
            if leads == turn:
                result = load()
    return result


def rank_zero_only(function: Callable) -> Callable:
    """Decorator: only rank 0 calls the function; the others return None. If it fails, all ranks end."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with fail_together():
            return None if rank else function(*args, **kwargs)

    return run


@contextmanager
def fail_together() -> Iterator[None]:
    """If the block fails on one rank, end all ranks, with the error of the first that failed."""
    error = None
    try:
        yield
    except (UserError, OSError) as raised:
        error = raised
    failed = gather(np.array([error is not None], np.uint32), size)
    if failed.any() and np.argmax(failed) != rank:
        time.sleep(1)  # mlx.launch ends all ranks after the first; the one that failed must print its error before
        sys.exit(2)
    if error and rank:
        raise RankError(f"rank {rank} of {size}: {error}") from None
    if error:
        raise error


def check_same(what: dict[str, Any], ways: str) -> None:
    """Raise UserError if the ranks differ in what they must have in common."""
    common = broadcast(what)
    with fail_together():
        for name, value in json.loads(json.dumps(what)).items():
            if value != common[name]:
                raise UserError(f"its {name} is {value}, that of rank 0 is {common[name]} — {ways}")
