import pytest

from training.errors import DataRejected
from training.sources import Source, fingerprint, list_sources
from training.store import open_store


@pytest.fixture
def data(tmp_path):
    return open_store(str(tmp_path))


def found(data):
    return list_sources(data, list(data.list()))


def seen_in(data):
    return fingerprint(data.list())


def test_labels_csv_with_groups_in_any_order(data):
    data.write("labels.csv", b"\xef\xbb\xbflabel,group,path\r\nb,g1,x/2.png\r\na,,x/1.png\r\n")
    assert found(data) == [Source("x/1.png", "a"), Source("x/2.png", "b", "g1")]


def test_one_folder_a_class(data):
    for key in ("b/1.png", "a/deep/2.JPG", "a/.hidden/3.png", "a/notes.txt", "top.png"):
        data.write(key, b"x")
    assert found(data) == [Source("a/deep/2.JPG", "a"), Source("b/1.png", "b")]


def test_labels_csv_wins_over_folders(data):
    data.write("a/1.png", b"x")
    data.write("labels.csv", b"path,label\na/1.png,b\n")
    assert found(data) == [Source("a/1.png", "b")]


@pytest.mark.parametrize("labels", [b"", b"path,label\n", b"path|label\na|b\n"])
def test_labels_without_content_are_refused(data, labels):
    data.write("labels.csv", labels)
    with pytest.raises(DataRejected, match="received"):
        found(data)


def test_the_fingerprint_sees_every_change(data):
    seen = [seen_in(data)]
    for change in (
        lambda: data.write("a/1.png", b"x"),
        lambda: data.write("a/2.png", b"x"),
        lambda: data.write("a/2.png", b"xy"),
        lambda: data.delete("a/1.png"),
    ):
        change()
        seen.append(seen_in(data))
    assert len(set(seen)) == len(seen)
    assert seen_in(data) == seen[-1]
