"""Each file is read once, and again only when it changes."""

import pytest

from tests.conftest import SOLAR_CELLS, read_labels, small_settings
from training.config import load_config
from training.known_images import KnownImages
from training.reading import read_all, read_new
from training.shards import Part
from training.sources import list_sources
from training.store import LocalStore


class Counting(LocalStore):
    """A folder that remembers what was read."""

    def __init__(self, root):
        super().__init__(root)
        self.read_keys = []

    def read(self, key, at_most=None):
        self.read_keys.append(key)
        return super().read(key, at_most)


@pytest.fixture
def read(cells, tmp_path):
    """Reads the data set; gives the facts and which images were read for them."""
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path)).data

    def read(**changes):
        data, kept = Counting(cells), LocalStore(tmp_path / "kept")
        settings = config.model_copy(update=changes)
        entries = list(data.list())
        facts = read_all(data, entries, list_sources(data, entries), settings, KnownImages(kept, settings))
        return facts, sorted(key for key in data.read_keys if key != "labels.csv")

    return read


def test_unchanged_files_are_not_read_again(cells, read):
    names = sorted(name for name, _ in read_labels(cells))
    first, read_first = read()
    assert read_first == names
    again, read_again = read()
    assert read_again == [] and again.equals(first)
    changed = cells / names[3]
    changed.write_bytes((cells / names[4]).read_bytes())
    facts, read_then = read()
    assert read_then == [names[3]]
    assert facts.set_index("path")["sha256"][names[3]] == facts.set_index("path")["sha256"][names[4]]


def test_a_file_that_is_listed_twice_is_read_once(cells, read):
    with (cells / "labels.csv").open("a") as labels:
        labels.write(f"{read_labels(cells)[0][0]},defective\n")
    facts, names = read()
    assert len(facts) == 131 and len(names) == 130


def test_other_limits_are_other_facts(cells, read):
    read()
    facts, names = read(max_pixels=100)
    assert len(names) == 130 and facts["error"].str.contains("data.max_pixels").all()


def test_damaged_memory_of_facts_costs_time_alone(cells, read, tmp_path):
    first, _ = read()
    (kept,) = (tmp_path / "kept" / "images").rglob("facts.parquet")
    kept.write_bytes(b"no parquet")
    again, names = read()
    assert len(names) == 130 and again.equals(first)


def test_what_shards_have_read_is_known(cells, read, tmp_path):
    """Two of three shards, one of them twice: the rest is read, and all is as if no shard had been."""
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path)).data
    data, elsewhere = LocalStore(cells), KnownImages(LocalStore(tmp_path / "elsewhere"), config)
    entries = list(data.list())
    sources = list_sources(data, entries)
    shards = [read_new(data, entries, sources, config, elsewhere, Part(number, 3)) for number in (2, 0, 2)]
    KnownImages(LocalStore(tmp_path / "kept"), config).add(shards)
    facts, names = read()
    assert len(names) == 130 - len(shards[0]) - len(shards[1]) and names
    expected = read_all(data, entries, sources, config, elsewhere)
    columns = [name for name in expected if name != "signature_file"]
    assert facts[columns].equals(expected[columns])
    known = KnownImages(LocalStore(tmp_path / "kept"), config).signatures(facts)
    assert known.set_index("sha256")["signature"].to_dict() == (
        elsewhere.signatures(expected).set_index("sha256")["signature"].to_dict()
    )
