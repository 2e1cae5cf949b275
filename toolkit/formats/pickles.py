"""Pickles of tensors, read without unpickling.

Loading a pickle can run any code. So `Reader` interprets the instructions itself, supports only those that a dictionary
of tensors needs, imports nothing, and rejects everything else. pytorch.py interprets the tensors.
"""

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Global(NamedTuple):
    """A global that a pickle refers to, kept as a name: nothing is imported."""

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
    """An interpreter for pickles that build a dictionary of tensors, and no others.

    `read` returns the bytes of a storage by its key; all tensors together may have `limit` bytes.
    """

    def __init__(self, read: Callable[[str], bytes], limit: int):
        self.read, self.limit = read, limit
        self.stack, self.memo, self.storages = [], {}, {}

    def run(self, data: bytes) -> Any:
        """The result of the pickle."""
        for opcode, argument, _ in pickletools.genops(data):
            match opcode.name:
                case "STOP":
                    return self.stack.pop()
                case "PROTO" | "FRAME":
                    pass
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "SHORT_BINUNICODE" | "BINUNICODE":
                    self.stack.append(argument)
                case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                    self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}.get(opcode.name, ()))
                case "EMPTY_DICT" | "EMPTY_LIST":
                    self.stack.append({} if opcode.name == "EMPTY_DICT" else [])
                case "MARK":
                    self.stack.append(MARK)
                case "TUPLE":
                    self.stack.append(tuple(self.pop_to_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    self.stack.append(tuple(self.pop(int(opcode.name[-1]))))
                case "APPEND" | "APPENDS":
                    self.add_to_list(self.pop(1) if opcode.name == "APPEND" else self.pop_to_mark())
                case "SETITEM" | "SETITEMS":
                    self.add_to_dictionary(self.pop(2) if opcode.name == "SETITEM" else self.pop_to_mark())
                case "BUILD":  # layer versions, which are not needed
                    self.pop(1)
                    self.add_to_dictionary([])
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
                case "BINGET" | "LONG_BINGET":
                    self.stack.append(self.memo[argument])
                case "GLOBAL":
                    self.stack.append(known(*argument.split(" ")))
                case "STACK_GLOBAL":
                    self.stack.append(known(*self.pop(2)))
                case "BINPERSID":
                    self.stack.append(self.storage(*self.pop(1)))
                case "REDUCE":
                    self.stack.append(self.call(*self.pop(2)))
                case name:
                    raise ValueError(f"its pickle uses {name}, which a dictionary of tensors does not need")
        raise ValueError("its pickle has no end")

    def pop(self, count):
        return [self.stack.pop() for _ in range(count)][::-1]

    def pop_to_mark(self):
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def add_to_list(self, items):
        if not isinstance(self.stack[-1], list):
            raise ValueError("its pickle appends to something that is not a list")
        self.stack[-1].extend(items)

    def add_to_dictionary(self, items):
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("its pickle puts items into something that is not a dictionary")
        if not all(isinstance(key, (str, int)) for key in items[::2]):
            raise ValueError("a key of its dictionary is not a name")
        target.update(zip(items[::2], items[1::2], strict=True))

    def storage(self, described):
        """The values of a storage, read once."""
        word, kind, key, _, count = described
        if word != "storage" or not isinstance(kind, Global) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("its pickle points to something that is not a tensor's storage")
        if key not in self.storages:
            numbers = np.frombuffer(self.read(key), STORAGES[kind])
            if kind == BFLOAT16:
                wide = numbers.astype(np.uint32)
                wide <<= 16
                numbers = wide.view(np.float32)
            self.storages[key] = kind, numbers
        made, numbers = self.storages[key]
        if made != kind or len(numbers) != count:
            raise ValueError("a tensor's storage has the wrong size")
        return numbers

    def call(self, function, arguments):
        """The result of one of the supported functions."""
        if function == DICT and arguments == ():
            return {}
        if function == PARAMETER and isinstance(arguments[0], np.ndarray):
            return arguments[0]
        if function != TENSOR:
            raise ValueError("its pickle calls a function that a dictionary of tensors does not need")
        made = tensor(*arguments[:4])
        self.limit -= made.nbytes  # a file may refer to the same storage many times
        if self.limit < 0:
            raise ValueError("its tensors declare more data than the file contains")
        return made


def known(module, name):
    """A supported global that a pickle refers to."""
    if not isinstance(module, str) or not isinstance(name, str):  # a deeply nested tuple cannot be hashed
        raise ValueError("its pickle refers to something without a name")
    if (asked := Global(module, name)) not in KNOWN:
        raise ValueError(f"its pickle refers to {module}.{name}, which a dictionary of tensors does not need")
    return asked


def tensor(storage, offset, shape, strides):
    """A tensor as a view of its storage, if it lies within it and no value is used twice."""
    if not isinstance(storage, np.ndarray):
        raise ValueError("a tensor has no storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor has an impossible shape")
    # In Python integers, as NumPy's own check overflows.
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) > len(storage) or (0 not in shape and last >= len(storage)):
        raise ValueError("a tensor is larger than its storage")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
