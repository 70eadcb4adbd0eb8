"""What a data set is like as a whole, and how far it is from the last accepted one; pure."""

from training.config import DriftConfig
from training.documents import Document

# Below these a standard deviation says nothing: cameras differ by as much from one day to the next.
_LEAST_BRIGHTNESS_SD = 0.01
_LEAST_SIZE_SD = 0.1


class Spread(Document):
    """Mean and standard deviation over images."""

    mean: float
    sd: float


class DataSummary(Document):
    """Of the images that a night goes on with.

    Attributes:
        shares: each class's share.
        brightness: of the images' mean luminance, 0…1.
        log_pixels: of the natural logarithm of width times height.
    """

    images: int
    shares: dict[str, float]
    brightness: Spread
    log_pixels: Spread


class Drift(Document):
    """How far one property has moved.

    Attributes:
        statistic: total_variation_distance: half the sum of the shares' absolute changes. standardized_mean_difference:
            the change of the mean in standard deviations of the last accepted data.
        limit: above it the night fails; null: never.
    """

    statistic: str
    observed: float
    limit: float | None


def drifts(now: DataSummary, then: DataSummary, config: DriftConfig) -> dict[str, Drift]:
    """label_share, brightness and size; classes that only one of the two knows count as a share of nothing."""
    classes = now.shares.keys() | then.shares.keys()
    moved = sum(abs(now.shares.get(label, 0) - then.shares.get(label, 0)) for label in classes) / 2
    mean = "standardized_mean_difference"
    brightness = _standardized(now.brightness, then.brightness, _LEAST_BRIGHTNESS_SD)
    size = _standardized(now.log_pixels, then.log_pixels, _LEAST_SIZE_SD)
    return {
        "label_share": Drift(statistic="total_variation_distance", observed=moved, limit=config.max_label_share),
        "brightness": Drift(statistic=mean, observed=brightness, limit=config.max_brightness),
        "size": Drift(statistic=mean, observed=size, limit=config.max_size),
    }


def _standardized(now: Spread, then: Spread, least: float) -> float:
    return abs(now.mean - then.mean) / max(then.sd, least)
