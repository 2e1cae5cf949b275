"""Other people's checkpoints as NumPy arrays under our names: PyTorch's `.pth`, and `.safetensors`, also written.

A `.pth` file holds a pickle, and a pickle may run anything. So it is never unpickled: `Reader` goes through its
instructions itself, knows only those that a dictionary of tensors needs, imports nothing, and refuses all else.
"""

import json
import math
import pickletools
import struct
from typing import NamedTuple

import numpy as np

LARGEST_HEADER = 2**20  # bytes of a pickle, or of a header; those of a model have some thousands
TORCH_OLD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # begins files of before 2020


# PyTorch


class Global(NamedTuple):
    """A name that a pickle asks for. It stays a name: nothing is imported."""

    module: str
    name: str


DICT = Global("collections", "OrderedDict")
TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Global("torch._utils", "_rebuild_parameter")
STORAGES = {
    Global("torch", f"{name}Storage"): np.dtype(kind)
    for name, kind in (
        *(("Double", "<f8"), ("Float", "<f4"), ("Half", "<f2"), ("BFloat16", "<u2")),
        *(("Long", "<i8"), ("Int", "<i4"), ("Short", "<i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "?")),
    )
}
BFLOAT16 = Global("torch", "BFloat16Storage")
KNOWN = {DICT, TENSOR, PARAMETER, *STORAGES}
MARK = object()


def read_torch(archive):
    """The arrays in PyTorch's zip format: a pickle, and beside it the numbers of every tensor as plain bytes."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if entries[pickled].file_size > LARGEST_HEADER:
        raise ValueError("its pickle is far too large")
    if (order := entries.get(f"{folder}byteorder")) and archive.read(order) != b"little":
        raise ValueError("its bytes are in the order of another kind of machine")
    limit = 4 * sum(entry.file_size for entry in archive.infolist())  # bfloat16 becomes float32, and is copied
    state = Reader(lambda key: archive.read(entries[f"{folder}data/{key}"]), limit).run(archive.read(pickled))
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(array, np.ndarray) for array in state.values()):
        raise ValueError("it holds something else than a dictionary of tensors")
    return channels_last(state)


class Reader:
    """Runs the instructions of a pickle that builds a dictionary of tensors, and no other.

    `read` gives the bytes of a storage by its key; all tensors together may have `limit` bytes.
    """

    def __init__(self, read, limit):
        self.read, self.limit = read, limit
        self.stack, self.memo, self.storages = [], {}, {}

    def run(self, data):
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in ("PROTO", "FRAME"):
                continue
            handler = getattr(self, f"do_{name}", None)
            if handler:
                handler(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in LITERALS:
                self.stack.append(argument)
            else:
                raise ValueError(f"its pickle uses {name}, which no dictionary of tensors needs")
        raise ValueError("its pickle has no end")

    def pop_to_mark(self):
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def pop(self, count):
        if count > len(self.stack):
            raise ValueError("its pickle takes more than it has")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def do_MARK(self, _):
        self.stack.append(MARK)

    def do_GLOBAL(self, argument):
        self.push_global(*argument.split(" "))

    def do_STACK_GLOBAL(self, _):
        self.push_global(*self.pop(2))

    def push_global(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle asks for what has no name")
        if (asked := Global(module, name)) not in KNOWN:
            raise ValueError(f"its pickle asks for {module}.{name}, which no dictionary of tensors needs")
        self.stack.append(asked)

    def do_BINPUT(self, at):
        self.memo[at] = self.stack[-1]

    do_LONG_BINPUT = do_BINPUT

    def do_MEMOIZE(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_BINGET(self, at):
        self.stack.append(self.memo[at])

    do_LONG_BINGET = do_BINGET

    def do_TUPLE(self, _):
        self.stack.append(tuple(self.pop_to_mark()))

    def do_TUPLE1(self, _):
        self.stack.append(tuple(self.pop(1)))

    def do_TUPLE2(self, _):
        self.stack.append(tuple(self.pop(2)))

    def do_TUPLE3(self, _):
        self.stack.append(tuple(self.pop(3)))

    def do_APPEND(self, _):
        self.append(self.pop(1))

    def do_APPENDS(self, _):
        self.append(self.pop_to_mark())

    def append(self, items):
        if not isinstance(self.stack[-1], list):
            raise ValueError("its pickle appends to what is no list")
        self.stack[-1].extend(items)

    def do_SETITEM(self, _):
        self.set(self.pop(2))

    def do_SETITEMS(self, _):
        self.set(self.pop_to_mark())

    def set(self, items):
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("its pickle puts items into what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise ValueError("a key of its dictionary is no name")
            target[key] = value

    def do_BUILD(self, _):
        target, _ = self.pop(2)  # what is left out is the version of each layer
        if not isinstance(target, dict):
            raise ValueError("its pickle changes what is no dictionary")
        self.stack.append(target)

    def do_BINPERSID(self, _):
        (described,) = self.pop(1)
        kind, storage, key, _, count = described
        if kind != "storage" or not isinstance(storage, Global) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("its pickle points to what is no tensor's storage")
        dtype = STORAGES[storage]
        if key not in self.storages:
            self.storages[key] = self.read(key)
        if len(data := self.storages[key]) != count * dtype.itemsize:
            raise ValueError(f"a tensor's storage has {len(data)} bytes, which is not what it says")
        numbers = np.frombuffer(data, dtype)
        if storage == BFLOAT16:  # the upper half of a float32
            self.claim(2 * len(data))
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        self.stack.append(numbers)

    def claim(self, size):
        """Count bytes that are made; a file may refer to the same storage again and again."""
        self.limit -= size
        if self.limit < 0:
            raise ValueError("its tensors claim more than the file holds")

    def do_REDUCE(self, _):
        function, arguments = self.pop(2)
        if function == DICT and arguments == ():
            self.stack.append({})
        elif function == TENSOR:
            made = tensor(*arguments[:4])
            self.claim(made.nbytes)
            self.stack.append(made)
        elif function == PARAMETER and isinstance(arguments[0], np.ndarray):
            self.stack.append(arguments[0])
        else:
            raise ValueError("its pickle calls what no dictionary of tensors needs")


# What some instructions put on the stack.
CONSTANTS = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE"}


def tensor(storage, offset, shape, strides):
    """The view of a storage that a tensor is, if it lies within it and no number counts twice."""
    if not isinstance(storage, np.ndarray):
        raise ValueError("a tensor has no storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) > len(storage) or (0 not in shape and last >= len(storage)):
        raise ValueError("a tensor claims more than its storage holds")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def channels_last(arrays):
    """PyTorch's order of axes → ours: channels come last, in kernels and in what is flattened."""
    features = len(arrays["encoder.conv3.bias"])
    grid = math.isqrt(len(arrays["decoder.lin1.bias"]) // features)
    ours = {}
    for key, array in arrays.items():
        name = key.split(".")
        if name[-1] == "num_batches_tracked" or any(part.startswith("shortcut") for part in name):
            continue  # counted, or never used
        if array.ndim == 4:
            transposed = name[0] == "decoder" and name[1].startswith("conv")
            array = array.transpose(1, 2, 3, 0) if transposed else array.transpose(0, 2, 3, 1)
        elif name[1].startswith("proj") and name[-1] == "weight":
            array = array.reshape(len(array), features, grid, grid).transpose(0, 2, 3, 1).reshape(len(array), -1)
        elif name[:2] == ["decoder", "lin1"]:
            rest = array.shape[1:]
            array = array.reshape(features, grid, grid, *rest).swapaxes(0, 1).swapaxes(1, 2).reshape(-1, *rest)
        ours[key] = array
    return ours


# Safetensors: the length of a header, the header in JSON, the numbers of all arrays

DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"},
}


def is_safetensors(start, size):
    """Whether a file of that size that begins so can be one."""
    return len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8


def read_safetensors(data):
    """The arrays, with channels last, and the metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > LARGEST_HEADER:
        raise ValueError("its header is far too large")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", None) or {}
    numbers = memoryview(data)[8 + length :]
    arrays, claimed = {}, 0
    for key, said in header.items():
        dtype, shape, (start, end) = np.dtype(DTYPES[said["dtype"]]), said["shape"], said["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (start, end, *shape)) or len(shape) > 8:
            raise ValueError(f"its header says impossible numbers of {key[:40]}")
        claimed += end - start
        if end > len(numbers) or math.prod(shape) * dtype.itemsize != end - start or claimed > len(numbers):
            raise ValueError(f"its header lies about the size of {key[:40]}")
        array = np.frombuffer(numbers[start:end], dtype)
        if said["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[key] = array.reshape(shape)
    kernel = arrays.get("encoder.conv2.weight")
    if kernel is not None and kernel.shape[2:] == (3, 3) and kernel.shape[1] != 3:
        arrays = channels_last(arrays)
    return arrays, metadata


def write_safetensors(arrays, metadata):
    """The bytes of a file with these arrays, as float32; metadata is a dictionary from names to texts."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for key, array in sorted(arrays.items()):
        part = np.ascontiguousarray(array, "<f4").tobytes()
        header[key] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
