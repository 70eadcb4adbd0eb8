"""More sample images than there are: also turned over, which makes other pictures of them."""

from pathlib import Path

import pandas as pd
from PIL import Image

from training.sample import write_sample

TURNS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)


def many_cells(folder: Path, copies: int) -> pd.DataFrame:
    """The sample images as they are and turned over, which are other pictures; the rows of `labels.csv`."""
    write_sample(folder / "cells")
    rows = pd.read_csv(folder / "cells" / "labels.csv", dtype=str)
    tables = [rows]
    for number, turn in list(enumerate(TURNS))[1:copies]:
        turned = rows.assign(path=[f"turned{number}/{path}" for path in rows["path"]])
        for old, new in zip(rows["path"], turned["path"], strict=True):
            (folder / "cells" / new).parent.mkdir(parents=True, exist_ok=True)
            Image.open(folder / "cells" / old).transpose(turn).save(folder / "cells" / new)
        tables.append(turned)
    return pd.concat(tables, ignore_index=True)
