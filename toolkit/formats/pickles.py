"""Pickles of tensors, read without unpickling.

A pickle may run anything when it is loaded. So `Reader` goes through its instructions itself, knows only those that a
dictionary of tensors needs, imports nothing, and refuses all else. What the tensors mean is pytorch.py's.
"""

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


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


class Reader:
    """Runs the instructions of a pickle that builds a dictionary of tensors, and no other.

    `read` gives the bytes of a storage by its key; all tensors together may have `limit` bytes.
    """

    def __init__(self, read: Callable[[str], bytes], limit: int):
        self.read, self.limit = read, limit
        self.stack, self.memo, self.storages = [], {}, {}

    def run(self, data: bytes) -> Any:
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
                raise ValueError(f"its pickle uses {name}, which a dictionary of tensors does not need")
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
            raise ValueError("its pickle asks for something without a name")
        if (asked := Global(module, name)) not in KNOWN:
            raise ValueError(f"its pickle asks for {module}.{name}, which a dictionary of tensors does not need")
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
            raise ValueError("its pickle appends to something that is not a list")
        self.stack[-1].extend(items)

    def do_SETITEM(self, _):
        self.set(self.pop(2))

    def do_SETITEMS(self, _):
        self.set(self.pop_to_mark())

    def set(self, items):
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("its pickle puts items into something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise ValueError("a key of its dictionary is not a name")
            target[key] = value

    def do_BUILD(self, _):
        target, _ = self.pop(2)  # what is left out is the version of each layer
        if not isinstance(target, dict):
            raise ValueError("its pickle changes something that is not a dictionary")
        self.stack.append(target)

    def do_BINPERSID(self, _):
        (described,) = self.pop(1)
        kind, storage, key, _, count = described
        if kind != "storage" or not isinstance(storage, Global) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("its pickle points to something that is not a tensor's storage")
        if (numbers := self.storages.get(key)) is None:
            numbers = self.storages[key] = storage, numbers_of(self.read(key), storage)
        if numbers[0] != storage or len(numbers[1]) != count:
            raise ValueError("a tensor's storage does not have as many numbers as it claims")
        self.stack.append(numbers[1])

    def claim(self, size):
        """Count the bytes of tensors; a file may refer to the same storage again and again."""
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
            raise ValueError("its pickle calls what a dictionary of tensors does not need")


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


def numbers_of(data, storage):
    """The bytes of a storage as numbers."""
    numbers = np.frombuffer(data, STORAGES[storage])
    return (numbers.astype(np.uint32) << 16).view(np.float32) if storage == BFLOAT16 else numbers


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
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
