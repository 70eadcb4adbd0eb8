import pytest

from training.assignment import place
from training.config import SplitConfig
from training.split import assign

CONFIG = SplitConfig()
# Names whose hashes fall into the split they are named after.
IN = {
    name: next(f"{name}{n}" for n in range(1000) if assign(f"{name}{n}", CONFIG) == name) for name in ("train", "test")
}


def placed(units, tied=None, elders=None, known=None):
    found = place(units, tied=tied or {}, elders=elders or {}, known=known or {}, config=CONFIG)
    return {image: placement.split for image, placement in found.items()}


def test_by_default_the_hash_of_the_units_name_decides():
    units = {IN["train"]: ["a", "b"], IN["test"]: ["c"]}
    assert placed(units) == {"a": "train", "b": "train", "c": "test"}


def test_a_group_follows_its_images_in_the_ledger():
    assert placed({IN["train"]: ["a"]}, tied={IN["train"]: frozenset({"test"})}) == {"a": "test"}


def test_a_near_duplicate_follows_its_elder_and_takes_its_group_along():
    units, elders = {IN["train"]: ["a", "b"]}, {"a": ["old"]}
    assert placed(units, elders=elders, known={"old": "test"}) == {"a": "test", "b": "test"}


def test_an_elder_may_be_as_new():
    units = {IN["test"]: ["a"], IN["train"]: ["b"]}
    assert placed(units, elders={"b": ["a"]}) == {"a": "test", "b": "test"}


def test_elders_of_its_own_group_do_not_count():
    assert placed({IN["train"]: ["a", "b"]}, elders={"b": ["a"]}) == {"a": "train", "b": "train"}


@pytest.mark.parametrize(
    ("units", "tied", "elders", "bridging"),
    [
        ({"it": ["a"]}, {}, {"a": ["old", "older"]}, {"a"}),
        ({"group": ["a", "b"]}, {}, {"a": ["old"], "b": ["older"]}, {"a", "b"}),
        ({"group": ["a", "b"]}, {"group": frozenset({"test"})}, {"a": ["old"]}, {"a"}),
        ({"group": ["a", "b"]}, {"group": frozenset({"test", "train"})}, {}, {"a", "b"}),
    ],
    ids=["an image", "a new group", "an image of a known group", "a group that was torn before"],
)
def test_what_would_be_in_two_splits_is_in_none(units, tied, elders, bridging):
    found = place(units, tied=tied, elders=elders, known={"old": "train", "older": "test"}, config=CONFIG)
    assert {image for image, placement in found.items() if placement.split is None} == bridging
    reasons = [found[image].leakage for image in bridging]
    assert all("train" in reason and "test" in reason for reason in reasons)
    assert all(found[image].split == "test" for image in set(found) - bridging)


def test_nobody_follows_an_image_without_a_split():
    units = {"it": ["a"], IN["train"]: ["b"]}
    found = placed(units, elders={"a": ["old", "older"], "b": ["a"]}, known={"old": "train", "older": "test"})
    assert found == {"a": None, "b": "train"}
