"""The steps of a night by name, apart from what they need: the command line's help is to be there at once."""

STEPS = ("ingest", "validate", "oversample", "train", "recalibrate_batch_norm", "evaluate", "promote")
# Those that may be cut into `scale.shards`.
SHARDED = ("ingest", "train", "recalibrate_batch_norm", "evaluate")
