import random
from collections import Counter

from training.config import SplitConfig
from training.split import assign, position

CONFIG = SplitConfig()


def test_new_images_never_move_old_ones():
    old = {f"image-{number}": assign(f"image-{number}", CONFIG) for number in range(1000)}
    together = [f"image-{number}" for number in range(1100)]
    random.Random(0).shuffle(together)
    again = {key: assign(key, CONFIG) for key in together}
    assert all(again[key] == split for key, split in old.items())


def test_shares_are_as_configured():
    counts = Counter(assign(str(number), CONFIG) for number in range(20_000))
    assert abs(counts["test"] / 20_000 - CONFIG.test) < 0.01
    assert abs(counts["validation"] / 20_000 - CONFIG.validation) < 0.01


def test_a_larger_test_share_only_adds():
    larger = CONFIG.model_copy(update={"test": 0.3})
    keys = [str(number) for number in range(500)]
    assert {key for key in keys if assign(key, CONFIG) == "test"} < {
        key for key in keys if assign(key, larger) == "test"
    }


def test_the_salt_changes_the_split():
    assert position("a", "key") != position("b", "key")
