"""The processes that compute together, if mlx.launch has started several: their number, their sums, their shares.

Each of them is a rank and runs the whole command; rank 0 alone prints and writes. Sums go over MLX's own engine,
whatever carries it (ring, MPI, JACCL, NCCL). For a process that is alone, everything here leaves its arguments as they
are, and costs nothing.
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

rank, size = 0, 1  # of this process; how many there are
LONGEST = 120  # seconds for the ranks to meet
leads = True  # whether this one is the first of its host


def join() -> None:
    """Meet the other ranks, if there are any, and share this machine's cores with those that are here, too."""
    global rank, size, leads
    if process.launched_as() is None:
        return
    # No Python runs while MLX waits for the others, so signals must end the process by themselves.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.alarm(LONGEST)
    try:
        group = mx.distributed.init()
    except (RuntimeError, ValueError) as error:
        ways = "did all of them start, and is the port free (mlx.launch -p takes another)?"
        raise UserError(f"the ranks cannot meet: {error} — {ways}") from None
    finally:
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    rank, size = group.rank(), group.size()
    if size > 1:
        host = zlib.crc32(platform.node().encode())  # names may share it, but then only cores stay idle
        hosts = gather(np.array([host], np.uint32), size)
        process.neighbours, leads = int((hosts == host).sum()), int(np.argmax(hosts == host)) == rank
        versions = {"version of MLX": mx.__version__, "version of this toolkit": version()}
        check_same(versions, "install the same packages and check out the same commit on every host")


def version() -> str:
    """The version of this toolkit, with a checksum of its Python files."""
    root, checksum = Path(toolkit.__file__).parents[1], 0
    for path in sorted((*root.glob("*.py"), *root.glob("toolkit/**/*.py"))):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return f"{toolkit.__version__} ({checksum:08x})"


# Shares


def share(values: Any) -> Any:
    """This rank's part of an array or list: consecutive elements, in parts of about equal size."""
    return values[len(values) * rank // size : len(values) * (rank + 1) // size]


def gather(own: np.ndarray, count: int) -> np.ndarray:
    """All `count` elements of an array of which every rank has its share, bit for bit."""
    if size == 1:
        return own
    whole = np.zeros((count, *own.shape[1:]), own.dtype)
    share(whole)[:] = own
    return total(whole.reshape(-1).view(np.uint32)).view(own.dtype).reshape(whole.shape)  # sums of zeros and one number


def broadcast(value: Any) -> Any:
    """The value of rank 0, on all ranks; anything that JSON can hold."""
    if size == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode() if rank == 0 else b"", np.uint8)
    numbers = np.zeros(int(total(np.array([len(text)], np.uint32))[0]), np.uint32)
    numbers[: len(text)] = text
    return json.loads(total(numbers).astype(np.uint8).tobytes())


def broadcast_arrays(tree: Any) -> Any:
    """The arrays of a tree as rank 0 has them, on all ranks."""
    if size > 1:
        tree = tree_map(lambda array: all_sum(array if rank == 0 else mx.zeros_like(array)), tree)
        with waiting():
            mx.eval(tree)  # now, as ranks must not meet in different orders
    return tree


# Sums


def all_sum(x: mx.array) -> mx.array:
    """The sum of an array over the ranks."""
    return mx.distributed.all_sum(x) if size > 1 else x


def total(values: np.ndarray) -> np.ndarray:
    """The same for numbers of NumPy, computed at once."""
    with waiting():
        return np.array(all_sum(mx.array(values)))


def differentiable_sum(x: mx.array) -> mx.array:
    """The same for what losses are made of: a gradient is the sum of those that the ranks have for it."""
    if size == 1:
        return x
    forward = mx.custom_function(all_sum)
    forward.vjp(lambda _, gradient, __: all_sum(gradient))
    return forward(x)


def mean(x: mx.array) -> mx.array:
    """The mean over the rows that the ranks have, (N, D) → (D,), for what losses are made of."""
    if size == 1:
        return x.mean(axis=0)
    rows = mx.full((1,), len(x), dtype=x.dtype)
    sums = differentiable_sum(mx.concatenate([x.sum(axis=0), rows]))
    return sums[:-1] / sums[-1]


def sum_gradients(tree: Any) -> Any:
    """The sums of all arrays in a tree, sent as one."""
    if size == 1:
        return tree
    arrays = [array for _, array in tree_flatten(tree)]
    sums = all_sum(mx.concatenate([array.reshape(-1) for array in arrays]))
    parts = iter(mx.split(sums, np.cumsum([array.size for array in arrays])[:-1].tolist()))
    return tree_map(lambda array: next(parts).reshape(array.shape), tree)


# Turns and errors


def leader_first(load: Callable[[], Any]) -> Any:
    """What `load` returns, called by the first rank of each host, and then by others, which find what it has made."""
    loaded = None
    for turn in (True, False):
        with fail_together():
            if leads == turn:
                loaded = load()
    return loaded


def rank_zero_only(function: Callable) -> Callable:
    """Decorator: rank 0 alone calls the function, and all end where it fails; the others get None."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with fail_together():
            return None if rank else function(*args, **kwargs)

    return run


@contextmanager
def fail_together() -> Iterator[None]:
    """What one rank cannot do ends all of them, with the words of the first that could not."""
    error = None
    try:
        yield
    except (UserError, OSError) as raised:
        error = raised
    failed = gather(np.array([error is not None], np.uint32), size)
    if failed.any() and np.argmax(failed) != rank:
        time.sleep(1)  # mlx.launch ends all with the first that ends, so the one that failed has to speak before
        sys.exit(2)
    if error and rank:
        raise RankError(f"rank {rank} of {size}: {error}") from None
    if error:
        raise error


def check_same(what: dict[str, Any], ways: str) -> None:
    """Stop where ranks differ in what they must have in common."""
    common = broadcast(what)
    with fail_together():
        for name, value in json.loads(json.dumps(what)).items():
            if value != common[name]:
                raise UserError(f"its {name} is {value}, and that of rank 0 is {common[name]} — {ways}")
