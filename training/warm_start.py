"""A night that goes on from the champion instead of the pretrained weights: when it may, and from which values.

Data grow by a little every night, so most of what the champion knows is still right. It is held to the same gate as
every other model; after a refusal, and every `train.full_every` nights, training is whole again.
"""

import logging

import keras
import numpy as np

from training import champion, network
from training.champion import Champion
from training.config import RunConfig, TrainConfig
from training.documents import Document
from training.errors import StoreError
from training.logits import output_layer
from training.nights import all_nights, preceding
from training.store import Store, open_store

log = logging.getLogger(__name__)
_CLASSIFIER = "classifier"


class WarmStart(Document):
    """Where a night's training begins.

    Attributes:
        champion: the number of the model it goes on from; null: from the pretrained weights.
        nights: without a whole training, this one included; 0: this one is whole.
        reason: why so, in words.
    """

    champion: int | None = None
    nights: int = 0
    reason: str


def decide(config: RunConfig, run: str) -> WarmStart:
    """Whether the run of that name goes on from the champion, by what the stores say at this moment."""
    if config.train.full_every == 1:
        return WarmStart(reason="train.full_every is 1")
    entry = champion.current(open_store(config.store.champion))
    if entry is None:
        return WarmStart(reason="there is no champion")
    if reason := _unsuited(entry, config) or _refused_before(config, run):
        return WarmStart(reason=reason)
    nights = entry.warm_nights + 1
    return WarmStart(champion=entry.number, nights=nights, reason=f"night {nights} since a whole training")


def shortened(config: TrainConfig) -> TrainConfig:
    """The training of a night that goes on: few epochs of all that trains, none of the head alone."""
    return config.model_copy(update={"head_epochs": 0, "epochs": config.warm_epochs})


def go_on(model: keras.Model, store: Store, number: int) -> bool:
    """Give the model, as it was built, the champion's values; False, and untouched, where that is another network."""
    entry = champion.history(store)[number - 1]
    try:
        served = network.from_bytes(champion.read_model(store, entry))
    except StoreError as error:
        log.warning("the champion cannot be gone on from: %s", error.message)
        return False
    old = served.get_layer(_CLASSIFIER)
    if old.input_shape != model.input_shape or _variables(old).keys() != _variables(model).keys():
        log.warning("champion %d is another network: training begins from the pretrained weights", number)
        return False
    for key, variable in _variables(model).items():
        variable.assign(_variables(old)[key])
    bias = output_layer(model).bias
    bias.assign_sub(np.array(entry.prior_shift, np.float32))  # which serving added
    return True


def _variables(model: keras.Model) -> dict[tuple[str, tuple[int, ...]], keras.Variable]:
    """What a network knows, by layer and name, and shape; not what its dropout draws from."""
    found = [(layer, variable) for layer in model._flatten_layers() for variable in _own(layer)]
    return {(f"{layer.name}/{variable.name}", tuple(variable.shape)): variable for layer, variable in found}


def _own(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [] if isinstance(layer, keras.Model) else layer.weights


def _unsuited(entry: Champion, config: RunConfig) -> str | None:
    if entry.classes != config.data.classes:
        return "the champion knows other classes"
    if not entry.prior_shift:
        return "the champion is of a version that did not say how its answers were shifted"
    if entry.warm_nights + 1 >= config.train.full_every:
        return f"it is the turn of a whole training, as every {config.train.full_every} nights"
    return None


def _refused_before(config: RunConfig, run: str) -> str | None:
    """What was gone on from and refused would most likely be refused again."""
    earlier = preceding(all_nights(config.store.runs, config.name), run)
    refused = bool(earlier) and earlier[0].outcome == "failed" and earlier[0].step in ("evaluate", "promote")
    return f"the night before, {earlier[0].run}, was refused" if refused else None
