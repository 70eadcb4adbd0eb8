"""What the champion says of images: python -m examples.predict STORE IMAGE …  (STORE: a folder or s3://bucket/prefix)"""

import sys
from pathlib import Path

from training import champion, images, network
from training.store import open_store

store = open_store(sys.argv[1])
entry = champion.current(store) or sys.exit(f"STORE: received {sys.argv[1]!r}, expected a store with a champion")
model = network.from_bytes(champion.read_model(store, entry))  # refused if its checksum is not the champion's
names = entry.classes[1:] if len(entry.classes) == 2 else entry.classes
for path in sys.argv[2:]:
    probabilities = model.predict_on_batch(images.decode(Path(path).read_bytes())[None])[0]
    print(path, *(f"{name} {share:.3f}" for name, share in zip(names, probabilities, strict=True)))
