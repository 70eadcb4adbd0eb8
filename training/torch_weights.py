"""Reads weights that torch saved in its old layout, without torch and without running anything in the file."""

import collections
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from training.errors import ConfigError, received

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {
    ("torch", "HalfStorage"): np.dtype("<f2"),
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "DoubleStorage"): np.dtype("<f8"),
    ("torch", "IntStorage"): np.dtype("<i4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a saved state dict, by name, in the file's order and torch's axis order.

    The layout is ``torch.serialization._legacy_save``'s: magic, protocol, system, state dict and storage keys as
    pickles, then each storage as an int64 length and its raw little-endian elements.

    Raises:
        ConfigError: the file cannot be read, is not of that layout, or names a global outside the allow-list.
    """
    try:
        with Path(path).open("rb") as file:
            return _read(file)
    except OSError as error:
        raise _refusal(path, type(error).__name__) from None
    except Exception as error:  # noqa: BLE001 a damaged pickle can raise almost anything
        raise _refusal(path, " ".join(str(error).split()) or type(error).__name__) from None


class _Unpickler(pickle.Unpickler):
    """Knows ordered dicts, tensors and storages, and nothing else that a pickle could call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) in _STORAGES:
            return _STORAGES[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, length, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError("it holds something other than plain storages")
        return _Storage(str(key), dtype, int(length))


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _load(file) != _MAGIC or _load(file) != _PROTOCOL or not _load(file).get("little_endian"):
        raise pickle.UnpicklingError("its header is another")
    tensors = {name: value for name, value in _load(file).items() if isinstance(value, _Tensor)}
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    contents = {key: _elements(file, storages[key]) for key in _load(file)}
    return {name: _array(tensor, contents[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(file: BinaryIO) -> Any:
    return _Unpickler(file).load()


def _elements(file: BinaryIO, storage: _Storage) -> np.ndarray:
    (length,) = struct.unpack("<q", file.read(8))
    if length != storage.length:
        raise pickle.UnpicklingError("a storage has another length than its tensors say")
    return np.frombuffer(file.read(length * storage.dtype.itemsize), storage.dtype, length)


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """The tensor's own elements: strides need not be contiguous, and may not leave the storage."""
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or last >= len(elements):
        raise pickle.UnpicklingError("a tensor reaches outside its storage")
    in_bytes = [stride * elements.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, in_bytes).copy()


def _refusal(path: str | Path, reason: str) -> ConfigError:
    expected = f"a torch state dict in torch's old (before 1.6) layout ({reason})"
    return ConfigError(received("model.weights", str(path), expected))
