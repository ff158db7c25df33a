"""Pools from data sets as their authors publish them: Omniglot's zips and CIFAR-100's archives.

Archives are read in memory, member by member, with a limit on each size. Nothing is extracted to
disk and nothing is unpickled: the "python version" of CIFAR-100 is read by interpreting the few
opcodes that build dictionaries, lists, text and one array. A file with any other is refused.
"""

from __future__ import annotations

import io
import pickletools
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from quickstudy.core import DataError
from quickstudy.tasks.images import decode_many
from quickstudy.tasks.pool import Pool

__all__ = ["pool_from_cifar100", "pool_from_omniglot_zips", "read_plain_pickle"]

_MAX_IMAGE_BYTES = 1 << 20
_MAX_MEMBERS = 200_000
_MAX_CIFAR_BYTES = 256 << 20  # the largest member of the original is 155 MB
_CIFAR_ROW_BYTES = 2 + 3 * 32 * 32
_BINARY_FILES = {"train.bin", "test.bin", "fine_label_names.txt"}
_PYTHON_FILES = {"train", "test", "meta"}
_OMNIGLOT_FILE = re.compile(r"(?P<number>\d+)_(?P<drawer>\d+)\.png")


def pool_from_omniglot_zips(
    paths: Iterable[str | Path], *, size: int = 28, split: str = "all"
) -> Pool:
    """Return Omniglot from its published zips, white ink on black.

    Args:
        paths: ``images_background.zip``, ``images_evaluation.zip`` or both.
        size: height and width of the images in pixels; the originals have 105.
        split: which part of the data set this is.

    Returns:
        Pool with ``x`` uint8 ``[M, 1, size, size]``, classes ``alphabet/character`` and the drawer
        (1 to 20) as group.

    Raises:
        DataError: if a zip cannot be read or holds no Omniglot images.

    Source: Lake, Salakhutdinov and Tenenbaum (2015), "Human-level concept learning through
    probabilistic program induction".
    """
    items: list[tuple[str, bytes]] = []
    labels: list[str] = []
    drawers: list[int] = []
    for path in map(Path, paths):
        for member, data in _zip_images(path):
            pure = PurePosixPath(member)
            match = _OMNIGLOT_FILE.fullmatch(pure.name)
            if match is None or len(pure.parts) < 3:
                continue
            items.append((f"{path}:{member}", data))
            labels.append("/".join(pure.parts[-3:-1]))
            drawers.append(int(match["drawer"]))
    if not items:
        raise DataError(
            "no Omniglot images in the archives given: looked for "
            "alphabet/character/number_drawer.png. "
            "Give images_background.zip and images_evaluation.zip."
        )
    x, _ = decode_many(items, size=size, channels=1, invert=True, label="decoding omniglot")
    # archives differ in the order of their members: sorted, every source gives the same pool
    order = sorted(range(len(items)), key=lambda i: (labels[i], drawers[i]))
    return Pool.build(
        x[order],
        [labels[i] for i in order],
        name="omniglot",
        split=split,
        groups=[drawers[i] for i in order],
    )


def pool_from_cifar100(path: str | Path, *, size: int = 32, split: str = "all") -> Pool:
    """Return CIFAR-100 from its binary or python archive, training and test images together.

    Args:
        path: ``cifar-100-binary.tar.gz`` (simpler and faster) or
            ``cifar-100-python.tar.gz``.
        size: height and width of the images in pixels; the originals have 32.
        split: which part of the data set this is.

    Returns:
        Pool with ``x`` uint8 ``[60000, 3, size, size]`` and the 100 fine labels as classes.

    Raises:
        DataError: if the archive cannot be read or is not CIFAR-100.

    Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
    """
    source = Path(path)
    members = _tar_members(source, _BINARY_FILES | _PYTHON_FILES)
    if members.keys() >= _BINARY_FILES:
        x, labels = _cifar_binary(source, members)
    elif members.keys() >= _PYTHON_FILES:
        x, labels = _cifar_python(source, members)
    else:
        raise DataError(
            f"{source}: this is not an archive of CIFAR-100 (found {sorted(members) or 'none'} of "
            "its files). Download cifar-100-binary.tar.gz again."
        )
    if size != 32:
        x = _resized(x, size)
    return Pool.build(torch.from_numpy(x), labels, name="cifar100", split=split)


def _cifar_binary(source: Path, members: dict[str, bytes]) -> tuple[Any, list[str]]:
    """Return the images uint8 ``[M, 3, 32, 32]`` and the class name of each."""
    names = members["fine_label_names.txt"].decode("ascii", "replace").split()
    parts = []
    for member in ("train.bin", "test.bin"):
        data = np.frombuffer(members[member], np.uint8)
        if len(data) == 0 or len(data) % _CIFAR_ROW_BYTES:
            raise DataError(
                f"{source}:{member}: {len(data)} bytes are not rows of {_CIFAR_ROW_BYTES}. "
                "Download it again."
            )
        parts.append(data.reshape(-1, _CIFAR_ROW_BYTES))
    rows = np.concatenate(parts)  # [M, 2 + 3*32*32]: coarse label, fine label, pixels
    return rows[:, 2:].reshape(-1, 3, 32, 32), _class_names(source, rows[:, 1].tolist(), names)


def _cifar_python(source: Path, members: dict[str, bytes]) -> tuple[Any, list[str]]:
    """Return the images uint8 ``[M, 3, 32, 32]`` and the class name of each."""
    pixels, fine = [], []
    try:
        names = read_plain_pickle(members["meta"], what=f"{source}:meta")["fine_label_names"]
        for member in ("train", "test"):
            batch = read_plain_pickle(members[member], what=f"{source}:{member}")
            pixels.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
            fine.extend(batch["fine_labels"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{source}: this is not the python archive of CIFAR-100 ({error}). Download it again."
        ) from error
    return np.concatenate(pixels), _class_names(source, fine, names)


def _class_names(source: Path, fine: Sequence[int], names: Sequence[str]) -> list[str]:
    if not fine or max(fine) >= len(names) or min(fine) < 0:
        raise DataError(
            f"{source}: labels do not fit the {len(names)} class names. Download the archive again."
        )
    return [names[i] for i in fine]


def _resized(x: Any, size: int) -> Any:
    out = np.empty((len(x), 3, size, size), np.uint8)
    for i, pixels in enumerate(x):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        image = image.resize((size, size), Image.Resampling.LANCZOS)
        out[i] = np.asarray(image).transpose(2, 0, 1)
    return out


def _zip_images(path: Path) -> list[tuple[str, bytes]]:
    """Return name and content of each PNG in a zip."""
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MAX_MEMBERS:
                raise DataError(
                    f"{path}: {len(infos):,} members; at most {_MAX_MEMBERS:,} are read. "
                    "Download the archive again."
                )
            for info in infos:
                name = info.filename
                if info.is_dir() or not name.lower().endswith(".png") or "__MACOSX" in name:
                    continue
                with archive.open(info) as stream:
                    data = stream.read(_MAX_IMAGE_BYTES + 1)
                if len(data) > _MAX_IMAGE_BYTES:
                    raise DataError(
                        f"{path}:{name}: larger than {_MAX_IMAGE_BYTES:,} bytes, which no image of "
                        "this data set is. Download the archive again."
                    )
                found.append((name, data))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. Check the path.") from error
    # RuntimeError: an encrypted member; NotImplementedError: an unknown compression
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: cannot be read as a zip ({error}). Copy or download it again."
        ) from error
    return found


def _tar_members(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """Return the content of the regular members whose file name is wanted."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for count, member in enumerate(archive):
                if count >= 1000 or wanted <= found.keys():
                    break
                name = PurePosixPath(member.name).name
                if not member.isreg() or name not in wanted:
                    continue
                if member.size > _MAX_CIFAR_BYTES:
                    raise DataError(
                        f"{path}:{member.name}: {member.size:,} bytes, larger than any file of "
                        "CIFAR-100. Download the archive again."
                    )
                stream = archive.extractfile(member)
                found[name] = stream.read() if stream else b""
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. Check the path.") from error
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read as a tar archive ({error}). Copy or download it again."
        ) from error
    return found


# ---------------------------------------------------------------- plain data out of a pickled file

# markers that take the place of objects on the stack: the objects themselves are never made
_MARK = object()
_DTYPE, _ARRAY, _RECONSTRUCT = object(), object(), object()
_KNOWN_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _ARRAY,
    "numpy dtype": _DTYPE,
}
_VALUE_OPCODES = frozenset(
    {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINFLOAT"}
)
_STRING_OPCODES = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANT_OPCODES = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "MARK": _MARK,
    "EMPTY_TUPLE": (),
}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _PlainArray:
    """A uint8 array that is being built: a pickle makes the object first and its contents later."""

    def __init__(self) -> None:
        self.value = np.zeros(0, np.uint8)

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if dtype is not _DTYPE or not isinstance(data, str | bytes):
            raise ValueError("an array that is not of bytes")
        raw = data.encode("latin-1") if isinstance(data, str) else data
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def read_plain_pickle(data: bytes, *, what: str) -> dict[str, Any]:
    """Return the dictionary in a pickled file of plain data, without unpickling it.

    The file may hold dictionaries, lists, tuples, text, numbers and arrays of uint8. No object is
    imported, called or made: a file that asks for one is refused. Byte strings of Python 2 are read
    as Latin-1 text.

    Args:
        data: the file.
        what: its name, for errors.

    Returns:
        The dictionary.

    Raises:
        DataError: if the file is damaged or asks for anything else.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                break
            _step(opcode.name, argument, stack, memo)
        result = _finished(stack.pop())
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise DataError(
            f"{what}: refused: {error}. Only dictionaries, lists, text, numbers and uint8 arrays "
            "are read; use the binary version of the data set."
        ) from error
    if not isinstance(result, dict):
        raise DataError(
            f"{what}: holds {type(result).__name__}, not a dictionary. Download it again."
        )
    return result


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Carry out one opcode on the stack."""
    if name in _VALUE_OPCODES or name in _STRING_OPCODES:
        stack.append(argument)
    elif name in _CONSTANT_OPCODES:
        stack.append(_CONSTANT_OPCODES[name])
    elif name in ("EMPTY_DICT", "EMPTY_LIST"):
        stack.append({} if name == "EMPTY_DICT" else [])
    elif name in _TUPLE_SIZES:
        stack.append(tuple(stack.pop() for _ in range(_TUPLE_SIZES[name]))[::-1])
    elif name in ("TUPLE", "LIST", "DICT"):
        values = _above_mark(stack)
        pairs = dict(zip(values[::2], values[1::2], strict=True)) if name == "DICT" else {}
        stack.append({"TUPLE": tuple(values), "LIST": values, "DICT": pairs}[name])
    elif name in ("APPEND", "SETITEM"):
        value = stack.pop()
        key = stack.pop() if name == "SETITEM" else None
        _extend(stack[-1], [value] if name == "APPEND" else [key, value])
    elif name in ("APPENDS", "SETITEMS"):
        values = _above_mark(stack)
        _extend(stack[-1], values)
    elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[argument])
    elif name == "GLOBAL":
        stack.append(_known_global(argument))
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        if called is _DTYPE and arguments[0] != "u1":
            raise ValueError(f"an array of type {arguments[0]!r}")
        stack.append(_PlainArray() if called is _RECONSTRUCT else _require_dtype(called))
    elif name == "BUILD":
        state = stack.pop()
        if isinstance(stack[-1], _PlainArray):
            stack[-1].build(state)
        else:
            _require_dtype(stack[-1])
    elif name not in ("PROTO", "FRAME"):
        raise ValueError(f"opcode {name}")


def _known_global(argument: str) -> object:
    """Return the marker of a global that an array needs; no global is ever imported."""
    if argument not in _KNOWN_GLOBALS:
        raise ValueError(f"the file asks for {argument.replace(' ', '.')}")
    return _KNOWN_GLOBALS[argument]


def _require_dtype(value: object) -> object:
    if value is not _DTYPE:
        raise ValueError("a call of something other than an array")
    return value


def _above_mark(stack: list[Any]) -> list[Any]:
    """Take the values above the topmost mark off the stack, and the mark."""
    values: list[Any] = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


def _extend(target: Any, values: list[Any]) -> None:
    """Add values to a list, or keys and values in turn to a dictionary."""
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, dict):
        target.update(zip(values[::2], values[1::2], strict=True))
    else:
        raise ValueError("items for something that is neither list nor dictionary")


def _finished(value: Any) -> Any:
    """Return the value with arrays in place of the objects that stood for them."""
    if isinstance(value, _PlainArray):
        return value.value
    if isinstance(value, dict):
        return {k: _finished(v) if isinstance(v, _PlainArray) else v for k, v in value.items()}
    return value
