import numpy as np
import pytest

from training.checkpoints import FOLDER, Checkpoint, Checkpoints, packed, unpacked
from training.store import LocalStore

ARRAYS = {
    "weights": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
    "iteration": np.int64(7),
    "seed": np.array([1, 2**32 - 1], np.uint32),
    "none": np.empty((0, 3)),
}


def standing(number: int) -> Checkpoint:
    return Checkpoint({"number": number, "best": float("inf")}, ARRAYS)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def test_what_is_packed_comes_back_to_the_bit():
    found = unpacked(packed(standing(3)))
    assert found.facts == {"number": 3, "best": float("inf")}
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in found.arrays.items()} == {
        name: (np.asarray(array).dtype, np.shape(array), np.asarray(array).tobytes()) for name, array in ARRAYS.items()
    }


def test_nothing_pickled_is_read_or_written():
    with pytest.raises(ValueError, match="Object arrays"):
        packed(Checkpoint({}, {"code": np.array([print], object)}))


def test_the_newest_is_found_and_few_are_kept(store):
    checkpoints = Checkpoints(store, "work")
    assert checkpoints.newest() is None
    for number in range(1, 13):
        checkpoints.save(standing(number))
    assert Checkpoints(store, "work").newest().facts["number"] == 12
    assert [entry.key.split("/")[-1][:8] for entry in store.list(FOLDER)] == ["00000011", "00000012"]


def test_other_works_checkpoints_are_not_seen(store):
    Checkpoints(store, "work").save(standing(1))
    assert Checkpoints(store, "other").newest() is None


def test_a_flipped_bit_is_noticed_wherever_it_is(store, tmp_path, caplog):
    Checkpoints(store, "work").save(standing(1))
    (path,) = tmp_path.rglob("*.npz")
    content = path.read_bytes()
    for place in range(0, len(content), 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert Checkpoints(store, "work").newest() is None
    assert f"{path.name} is damaged" in caplog.text


def test_after_a_damaged_one_the_next_is_the_newest(store, tmp_path):
    checkpoints = Checkpoints(store, "work")
    checkpoints.save(standing(1))
    checkpoints.save(standing(2))
    damage(max(tmp_path.rglob("*.npz")))
    assert checkpoints.newest().facts["number"] == 1
    checkpoints.save(standing(3))
    assert checkpoints.newest().facts["number"] == 3


def test_clearing_leaves_nothing(store, tmp_path):
    Checkpoints(store, "work").save(standing(1))
    Checkpoints(store, "other").clear()
    assert not list(tmp_path.rglob("*.npz"))


def test_they_go_to_s3_as_well(s3):
    from training.store import open_store

    checkpoints = Checkpoints(open_store(f"{s3}/runs/night"), "work")
    for number in (1, 2, 3):
        checkpoints.save(standing(number))
    assert Checkpoints(open_store(f"{s3}/runs/night"), "work").newest().facts["number"] == 3
