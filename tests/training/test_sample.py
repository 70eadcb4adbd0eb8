import csv
from collections import Counter


def test_the_sample_is_2624_real_cells_with_labels(all_cells):
    with (all_cells / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["label"] for row in rows) == {"intact": 1803, "defective": 821}
    assert all((all_cells / row["path"]).stat().st_size > 0 for row in rows)
