import pandas as pd
import pytest

from training import manifest

TABLE = pd.DataFrame({"path": ["a", "b"], "sha256": ["1", None], "label": ["x", None], "width": [3, 4]})


def test_a_digest_is_of_paths_contents_and_labels_in_any_order():
    found = manifest.digest(manifest.typed(TABLE))
    assert manifest.digest(manifest.typed(TABLE[::-1])) == found
    assert manifest.digest(manifest.typed(TABLE.assign(width=9))) == found
    assert len(found) == 64


@pytest.mark.parametrize("column", ["path", "sha256", "label"])
def test_another_value_is_another_digest(column):
    other = TABLE.copy()
    other.loc[0, column] = "other"
    assert manifest.digest(manifest.typed(other)) != manifest.digest(manifest.typed(TABLE))
