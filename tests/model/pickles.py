"""Files as torch pickles them, built and damaged by hand: no torch is needed."""

import io
import pathlib
import struct
import zipfile

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
ZIP, LEGACY, SHARDED = (GOLDEN / f"pickle_{name}" for name in ("zip", "legacy", "sharded"))
FILE = "pytorch_model.bin"
MAGIC = 0x1950A86A20F9469CFC6C
FLOATS = "ctorch\nFloatStorage\n"


def entries(file: pathlib.Path = ZIP / FILE) -> dict[str, bytes]:
    """The files in an archive, by names without the first folder's."""
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, content in files.items():
            made.writestr(f"archive/{name}", content)
    return out.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    """The recorded archive with another pickle."""
    return archive(entries() | {"data.pkl": pickled})


def text(said: str) -> bytes:
    """What pushes a text."""
    return b"X" + struct.pack("<I", len(said.encode())) + said.encode()


def number(value: int) -> bytes:
    """What pushes a number."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    """What pushes a tuple of numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", count: int = 96, kind: str = FLOATS, view: bytes = b"") -> bytes:
    """What pushes a storage; 0 in the recorded archive has 96 numbers."""
    said = text("storage") + kind.encode() + text(key) + text("cpu") + number(count)
    return b"(" + said + view + b"tQ"


def tensor(
    stored: bytes = b"",
    offset: int = 0,
    shape: tuple[int, ...] = (12, 8),
    strides: tuple[int, ...] = (8, 1),
) -> bytes:
    """What pushes a tensor, of the recorded archive's first storage or another."""
    name, hooks = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n)R"
    given = (stored or storage()) + number(offset) + numbers(shape) + numbers(strides)
    return name + b"(" + given + b"\x89" + hooks + b"tR"


def named(value: bytes, name: str = "shared.weight") -> bytes:
    """A whole pickle of a dict with one value."""
    return b"\x80\x02}" + text(name) + value + b"s."


def legacy(
    pickled: bytes,
    keys: tuple[str, ...] = (),
    numbers: bytes = b"",
    magic: int = MAGIC,
    little: bytes = b"\x88",
) -> bytes:
    """A file as before torch 1.6."""
    system = b"\x80\x02}" + text("little_endian") + little + b"s."
    listed = b"\x80\x02](" + b"".join(map(text, keys)) + b"e."
    head = b"\x80\x02" + number(magic) + b"." + b"\x80\x02" + number(1001) + b"."
    return head + system + pickled + listed + numbers
