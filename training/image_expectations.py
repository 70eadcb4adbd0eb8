"""Expectations about images, kept as Great Expectations keeps its own: `{type, kwargs, meta}`, type in snake case."""

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from great_expectations import expectations as core
from great_expectations.compatibility import pydantic
from great_expectations.exceptions import ExpectationNotFoundError
from great_expectations.expectations.expectation import (
    BatchExpectation,
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)
from great_expectations.render import CollapseContent, LegacyDiagnosticRendererType
from great_expectations.render.renderer.renderer import renderer

from training.errors import ConfigError, received

_ABOUT_ROWS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
# Great Expectations 1.24 keeps a NumPy boolean of it, which its own store refuses to write.
_REFUSED = {"expect_column_quantile_values_to_be_between"}


def expectation_of(kind: str, kwargs: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Any:
    """The expectation of Great Expectations' own serialised form, its own or one of those below.

    Args:
        kind: its type, e.g. ``expect_column_values_to_be_between``.
        kwargs: its arguments; `description`, `notes` and `severity` may be among them.

    Raises:
        ConfigError: there is no such expectation, or it takes no such arguments.
    """
    if kind in _REFUSED:
        raise ConfigError(received("type", kind, "another, since its failure cannot be written down"))
    try:
        return get_expectation_impl(kind)(**{**kwargs, "meta": dict(meta or {})})
    except ExpectationNotFoundError:
        raise ConfigError(received("type", kind, f"an expectation's name, such as {_like(kind)}")) from None
    except pydantic.ValidationError as error:
        raise ConfigError(_told(kind, kwargs, error)) from None


def is_about_rows(kind: str) -> bool:
    """Whether each row breaks an expectation of this type or not; else it is about the whole."""
    return issubclass(get_expectation_impl(kind), _ABOUT_ROWS)


def _like(kind: str) -> str:
    # A class's name is close enough to its type once both are without capitals and underscores.
    names = {name.replace("_", ""): name for name in list_registered_expectation_implementations()}
    near = difflib.get_close_matches(kind.replace("_", "").lower(), names, n=1, cutoff=0)
    return names[near[0]]


def _told(kind: str, kwargs: Mapping[str, Any], error: pydantic.ValidationError) -> str:
    """One thing wrong: an unknown name, which explains a missing one; else the first of pydantic's."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "value_error.extra"), errors[0])
    name, what = str(first["loc"][0]), first["type"]
    if name == "__root__":
        return received(kind, dict(kwargs), f"arguments it takes ({first['msg']})")
    if what == "value_error.missing":
        return f"{kind}.{name}: received nothing, expected a value"
    unknown = what == "value_error.extra"
    expected = f"no such argument but {_arguments(kind)}" if unknown else f"a value it takes ({first['msg']})"
    return received(f"{kind}.{name}", kwargs.get(name), expected)


def _arguments(kind: str) -> str:
    names = get_expectation_impl(kind).__fields__
    return ", ".join(name for name in names if name not in BatchExpectation.__fields__)


class _OfImages:
    """What an expectation about images says of itself: its own sentence, and results counted in images.

    Attributes:
        given: its arguments unless others are passed. They are no defaults of fields because Great Expectations
            leaves these out of what it keeps, and then files the result under no column.
    """

    given: ClassVar[Mapping[str, Any]]
    description: str | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**self.given, **kwargs})
        self.description = self.description or self._sentence() + self._tolerance()

    def _sentence(self) -> str:
        raise NotImplementedError

    def _tolerance(self) -> str:
        mostly = getattr(self, "mostly", 1)
        is_less = isinstance(mostly, float) and mostly < 1
        return f" Must hold for at least {mostly * 100:g} % of the images." if is_less else ""

    def _range(self) -> str:
        own: Any = self
        low, high = "more than" if own.strict_min else "at least", "less than" if own.strict_max else "at most"
        bounds = ((low, own.min_value), (high, own.max_value))
        return " and ".join(f"{bound} {_shown(limit)}" for bound, limit in bounds if limit is not None)


def _shown(limit: Any) -> str:
    # Great Expectations takes dates too, and parameters of the suite.
    return f"{limit:g}" if isinstance(limit, int | float) else str(limit)


class _OfEachImage(_OfImages):
    """Held against one row after the other."""

    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.OBSERVED_VALUE)
    def _diagnostic_observed_value_renderer(cls, result: Any = None, **_: Any) -> str:
        found = result.result if result else {}
        if "unexpected_count" not in found:
            return "--"
        return f"{found['unexpected_count']:,} of {found['element_count']:,} images break it"

    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.UNEXPECTED_STATEMENT)
    def _diagnostic_unexpected_statement_renderer(cls, result: Any = None, **others: Any) -> list[Any]:
        # Only an exception is worth a statement: the observed value has counted the images.
        raised = result.exception_info and not result.result
        return super()._diagnostic_unexpected_statement_renderer(result=result, **others) if raised else []  # type: ignore[misc]

    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.UNEXPECTED_TABLE)
    def _diagnostic_unexpected_table_renderer(cls, **found: Any) -> list[Any]:
        values = super()._diagnostic_unexpected_table_renderer(**found)  # type: ignore[misc]
        return [CollapseContent(values, "Their values")] if values else []


class ExpectImagesToBeDecodable(_OfEachImage, core.ExpectColumnValuesToBeNull):
    given: ClassVar = {"column": "error"}

    def _sentence(self) -> str:
        return "Every file is an image that can be decoded to its end."


class ExpectImageWidthToBeBetween(_OfEachImage, core.ExpectColumnValuesToBeBetween):
    given: ClassVar = {"column": "width"}

    def _sentence(self) -> str:
        return f"Every image is {self._range()} pixels wide."


class ExpectImageHeightToBeBetween(_OfEachImage, core.ExpectColumnValuesToBeBetween):
    given: ClassVar = {"column": "height"}

    def _sentence(self) -> str:
        return f"Every image is {self._range()} pixels high."


class ExpectImageModesToBeInSet(_OfEachImage, core.ExpectColumnValuesToBeInSet):
    given: ClassVar = {"column": "mode"}

    def _sentence(self) -> str:
        return f"Every image's colour mode (Pillow's name) is one of {', '.join(map(str, self.value_set))}."


class ExpectImagesToBeUnique(_OfEachImage, core.ExpectColumnValuesToBeNull):
    given: ClassVar = {"column": "duplicate_of"}

    def _sentence(self) -> str:
        return "No two files hold the same image."


class ExpectOneLabelPerImage(_OfEachImage, core.ExpectColumnValuesToBeBetween):
    given: ClassVar = {"column": "labels_of_image", "max_value": 1}

    def _sentence(self) -> str:
        return "No image has two labels, whether listed twice or stored twice."


class ExpectNoLeakageBetweenSplits(_OfEachImage, core.ExpectColumnValuesToBeNull):
    given: ClassVar = {"column": "leaks_to"}

    def _sentence(self) -> str:
        return "No image is in one split and its like in another."


class ExpectBrightnessToBeBetween(_OfEachImage, core.ExpectColumnValuesToBeBetween):
    given: ClassVar = {"column": "brightness"}

    def _sentence(self) -> str:
        return f"Every image's mean brightness is {self._range()}."


class ExpectContrastToBeBetween(_OfEachImage, core.ExpectColumnValuesToBeBetween):
    given: ClassVar = {"column": "contrast"}

    def _sentence(self) -> str:
        return f"Every image's contrast (standard deviation of brightness) is {self._range()}."


class ExpectMeanBrightnessNotToDrift(_OfImages, core.ExpectColumnMeanToBeBetween):
    """The images' mean brightness is within `tolerance` of a `baseline`, such as the champion's training images."""

    given: ClassVar = {"column": "brightness"}
    baseline: float
    tolerance: pydantic.NonNegativeFloat

    @pydantic.root_validator(skip_on_failure=True)
    @classmethod
    def _limits(cls, values: dict[str, Any]) -> dict[str, Any]:
        middle, away = values["baseline"], values["tolerance"]
        return values | {"min_value": middle - away, "max_value": middle + away}

    def _sentence(self) -> str:
        return f"The images' mean brightness is within {self.tolerance:g} of the baseline's {self.baseline:g}."
