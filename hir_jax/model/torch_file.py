"""pytorch_model.bin: its tensors by name, without torch, and without running anything.

Such a file is a pickle, which is a program for a machine with a stack, beside plain numbers. The
machine here knows the few steps that torch.save takes for a dict of tensors. What the program names
is compared with a list of three kinds of names and never looked up, so that nothing is imported and
nothing of it called; any other step or name is refused.
"""

import dataclasses
import io
import math
import mmap
import pathlib
import pickletools
import struct
import zipfile
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from hir_jax.errors import UserError

# Far beyond what any T5 takes to name its tensors, and still done in seconds.
MOST_BYTES, MOST_STEPS, MOST_AXES = 2**24, 2**20, 8
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files before torch 1.6

DICT, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
STORAGES = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
}
NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True)
class _Name:
    """What a pickle calls by a name: one of the above."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A row of numbers somewhere in the file."""

    dtype: str
    key: str
    count: int

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(NUMPY[self.dtype])


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in steps of its numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Slice:
    """A tensor in a file, of which parts may be read; equal to another where it is the same one."""

    tensor: _Tensor
    values: np.ndarray = dataclasses.field(compare=False, repr=False)

    def get_shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.tensor.shape

    def get_dtype(self) -> str:
        """Its type, as safetensors call it."""
        return self.tensor.storage.dtype

    def __getitem__(self, part: Any) -> np.ndarray:
        """A part of it."""
        return self.values[part]


class TorchFile:
    """The tensors of a pytorch_model.bin, each read where it is asked for, as by `safe_open`."""

    def __init__(self, file: pathlib.Path) -> None:
        """Reads what the tensors are called and where they are.

        Raises:
            UserError: it is no such file, damaged, or has anything but tensors in it.
        """
        try:
            with file.open("rb") as stream:
                self._tensors, self._starts = _read(stream)
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except _Code as e:
            raise UserError(
                f"{file}: expected tensors by name and no code, found {e}. None of it was run. "
                "Take the model from whom you trust, as safetensors."
            ) from e
        except _FAULTS as e:
            what = e if type(e) is ValueError else f"{type(e).__name__}: {e}"
            raise UserError(
                f"{file}: expected a whole file of torch.save, found another or a damaged one "
                f"({what}). Copy or download it again."
            ) from e

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return list(self._tensors)

    def get_slice(self, name: str) -> Slice:
        """The tensor of a name, not yet read."""
        tensor = self._tensors[name]
        dtype, left = tensor.storage.numpy, tensor.storage.count - tensor.offset
        start = self._starts[tensor.storage.key] + tensor.offset * dtype.itemsize
        numbers = np.frombuffer(self._bytes, dtype, left, start)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
        return Slice(tensor, view)

    def get_tensor(self, name: str) -> np.ndarray:
        """The tensor of a name."""
        return self.get_slice(name).values


class _Code(Exception):
    """The file asks for more than tensors; the message names it."""


_FAULTS = (ValueError, TypeError, LookupError, OSError, struct.error)
_FAULTS += (zipfile.BadZipFile, NotImplementedError, OverflowError)


def _read(stream: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, int]]:
    """The tensors by name, and where each storage begins."""
    begins = stream.read(4)
    stream.seek(0)
    if begins != b"PK\3\4" and begins[:1] != b"\x80":
        raise ValueError("neither an archive nor a pickle")
    tensors, places = (_read_zip if begins == b"PK\3\4" else _read_legacy)(stream)
    if type(tensors) is not dict:
        raise ValueError("no dict of tensors")
    for name, tensor in tensors.items():
        if type(tensor) is not _Tensor:
            raise ValueError(f"no tensor under {name[:80]!r}")
        _check_tensor(name, tensor, places)
    return tensors, {key: start for key, (start, _) in places.items()}


def _check_tensor(name: str, tensor: _Tensor, places: dict[str, tuple[int, int]]) -> None:
    """Raises ValueError where the tensor is not within its storage, or larger than it is."""
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if storage.key not in places:
        raise ValueError(f"no numbers of {name[:80]!r}")
    if places[storage.key][1] != storage.count * storage.numpy.itemsize:
        raise ValueError(f"another count of numbers than that of {name[:80]!r}")
    if len(shape) != len(strides) or len(shape) > MOST_AXES or min(shape, default=1) < 1:
        raise ValueError(f"a shape of {name[:80]!r} that no T5 has")
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    least, most = min(tensor.offset, *strides, 0), max(math.prod(shape), last + 1, *strides)
    if least < 0 or most > storage.count:
        raise ValueError(f"{name[:80]!r} beyond its numbers")


# The two formats -----------------------------------------------------------------------------


def _read_zip(stream: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Since torch 1.6: an archive of NAME/data.pkl and of a NAME/data/KEY for each storage."""
    entries = _entries(stream)
    (pickled,) = (name for name in entries if name.endswith("/data.pkl"))
    top = pickled.removesuffix("data.pkl")

    def content(name: str) -> bytes:
        start, size = entries[name]
        if size > MOST_BYTES:
            raise ValueError(f"{name[:80]!r} of more than {MOST_BYTES} bytes")
        stream.seek(start)
        return stream.read(size)

    if f"{top}byteorder" in entries and content(f"{top}byteorder") != b"little":
        raise ValueError("numbers that are not little-endian")
    data = f"{top}data/"
    places = {n.removeprefix(data): place for n, place in entries.items() if n.startswith(data)}
    return _unpickle(io.BytesIO(content(pickled))), places


def _entries(stream: BinaryIO) -> dict[str, tuple[int, int]]:
    """Name -> (start, size) of the files in an archive; each stored as it is, on its own."""
    with zipfile.ZipFile(stream) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        end, limit = 0, archive.start_dir
    entries = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename[:80]!r} compressed, which torch never does")
        if info.filename in entries:
            raise ValueError(f"{info.filename[:80]!r} twice")
        stream.seek(info.header_offset)
        signature, name, extra = struct.unpack("<4s22xHH", stream.read(30))
        start = info.header_offset + 30 + name + extra
        if signature != b"PK\3\4" or info.header_offset < end or start + info.file_size > limit:
            raise ValueError(f"{info.filename[:80]!r} where something else is")
        end = start + info.file_size
        entries[info.filename] = (start, info.file_size)
    return entries


def _read_legacy(stream: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Before torch 1.6: five pickles, of which the last lists storages, and then these."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = io.BytesIO(stream.read(MOST_BYTES))
    if _unpickle(head) != LEGACY_MAGIC or _unpickle(head) != LEGACY_PROTOCOL:
        raise ValueError("no magic number of torch")
    if _unpickle(head)["little_endian"] is not True:
        raise ValueError("numbers that are not little-endian")
    tensors, keys = _unpickle(head), _unpickle(head)
    if type(tensors) is not dict or type(keys) is not list or {*map(type, keys)} - {str}:
        raise ValueError("no dict of tensors and list of storages")
    storages = {t.storage.key: t.storage for t in tensors.values() if type(t) is _Tensor}
    places, start = {}, head.tell()
    for key in keys:
        stream.seek(start)
        (count,) = struct.unpack("<Q", stream.read(8))
        length = count * storages[key].numpy.itemsize
        places[key] = (start + 8, length)
        start += 8 + length
        if start > size:
            raise ValueError("numbers cut short")
    return tensors, places


# The machine ---------------------------------------------------------------------------------

_NUMBERS_AND_TEXTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _unpickle(stream: io.BytesIO) -> Any:
    """The value of the pickle that begins here, of what torch.save makes of tensors by name.

    Raises:
        _Code: a step or name of another kind; it was not done, nor looked up.
        ValueError, LookupError, TypeError: it makes no sense.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        if count > len(stack):
            raise ValueError("a pickle that takes more than it has")
        taken = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return taken

    def pop_marked() -> list[Any]:
        return pop(len(stack) - marks.pop())

    for step, (opcode, value, _) in enumerate(pickletools.genops(stream)):
        if step == MOST_STEPS:
            raise ValueError(f"a pickle of more than {MOST_STEPS} steps")
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return pop(1)[0]
            case "MARK":
                marks.append(len(stack))
            case name if name in _NUMBERS_AND_TEXTS:
                stack.append(value)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _TUPLES:
                stack.append(tuple(pop(_TUPLES[name])))
            case "TUPLE":
                stack.append(tuple(pop_marked()))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "APPEND":
                _extend(stack[-2], pop(1))
            case "APPENDS":
                items = pop_marked()
                _extend(stack[-1], items)
            case "SETITEM":
                _update(stack[-3], pop(2))
            case "SETITEMS":
                items = pop_marked()
                _update(stack[-1], items)
            case "GLOBAL":
                stack.append(_named(value))
            case "REDUCE":
                stack.append(_made(*pop(2)))
            case "BUILD":  # on a dict: versions of the modules that the tensors came from
                if [type(each) for each in (stack[-2], pop(1)[0])] != [dict, dict]:
                    raise _Code("the pickle's step BUILD on another thing than a dict")
            case "BINPERSID":
                stack.append(_storage(pop(1)[0]))
            case name:
                raise _Code(f"the pickle's step {name}")
    raise ValueError("a pickle without an end")


def _extend(made: Any, items: list[Any]) -> None:
    if type(made) is not list:
        raise ValueError("items of no list")
    made += items


def _update(made: Any, items: list[Any]) -> None:
    keys = items[::2]
    # Texts alone: of tuples in tuples a hash may take for ever.
    if type(made) is not dict or {type(key) for key in keys} - {str}:
        raise ValueError("items of no dict of names")
    made.update(zip(keys, items[1::2], strict=True))


def _named(name: str) -> _Name:
    if name not in (DICT, TENSOR, *STORAGES):
        raise _Code(f"the name {name[:80].replace(' ', '.')!r}")
    return _Name(name)


def _made(name: Any, given: Any) -> Any:
    """What torch's own two functions of these names make."""
    if type(name) is not _Name or name.name not in (DICT, TENSOR) or type(given) is not tuple:
        raise _Code("the pickle's step REDUCE on another thing than a tensor")
    if name.name == DICT:
        if given:
            raise _Code("the pickle's step REDUCE on an OrderedDict of something")
        return {}
    storage, offset, shape, strides, *_ = given
    whole = [type(shape), type(strides), type(storage), type(offset)]
    if whole != [tuple, tuple, _Storage, int] or {*map(type, shape + strides)} - {int}:
        raise ValueError("a tensor of no shape")
    return _Tensor(storage, offset, shape, strides)


def _storage(given: Any) -> _Storage:
    if type(given) is not tuple or given[5:] not in ((), (None,)):
        raise ValueError("a storage of another kind")
    what, kind, key, _, count = given[:5]
    whole = [type(kind), type(what), type(key), type(count)] == [_Name, str, str, int]
    if not whole or what != "storage" or kind.name not in STORAGES or count < 0:
        raise ValueError("a storage of another kind")
    return _Storage(STORAGES[kind.name], key, count)
