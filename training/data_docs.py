"""Data Docs as pages that stand alone: no script, no request, and whatever a name holds is text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from great_expectations.render import RenderedComponentContent
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.content_block import ValidationResultsTableContentBlockRenderer
from great_expectations.render.renderer.site_builder import SiteBuilder
from great_expectations.render.view import DefaultJinjaPageView
from markupsafe import Markup, escape

_TEMPLATES = jinja2.PackageLoader("training", "templates/data_docs")
# Of the view's filters, those that give HTML.
_HTML = (
    "attributes_dict_to_html_string",
    "render_markdown",
    "render_styling",
    "render_styling_from_string_template",
)


def site(docs_dir: Path) -> dict[str, Any]:
    """What `context.add_data_docs_site` takes to write the pages into `docs_dir`."""
    page = {"module_name": __name__, "class_name": "Page"}
    table = {"module_name": __name__, "class_name": "Results"}
    column = {"class_name": "ValidationResultsColumnSectionRenderer", "table_renderer": table}
    results = {"module_name": __name__, "class_name": "Validation", "column_section_renderer": column}
    return {
        "module_name": __name__,
        "class_name": "Site",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_dir.absolute())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "view": page},
        "site_section_builders": {
            "expectations": {"view": page},
            # Without a filter of its own, it would leave out a run whose name holds "profiling".
            "validations": {
                "view": page,
                "renderer": results | {"run_info_at_end": True},
                "run_name_filter": {"matches_regex": "."},
            },
            "profiling": "None",
        },
    }


class Site(SiteBuilder):
    """Without the static files, of which the pages need none."""

    def build(self, *args: Any, **kwargs: Any) -> Any:
        self.target_store.copy_static_assets = lambda: None
        return super().build(*args, **kwargs)


class Page(DefaultJinjaPageView):
    """Great Expectations' content in our templates, which take the place of its own of the same name.

    Its templates write values as they are, and a path or a label may hold markup; here, all that is no markup of
    the templates or of the renderers' styling is escaped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.env.loader = jinja2.ChoiceLoader([_TEMPLATES, self.env.loader])
        self.env.autoescape = True
        self.env.filters |= {name: _html(self.env.filters[name]) for name in _HTML}

    @jinja2.pass_context
    def render_content_block(self, context: Any, block: Any, *args: Any, **kwargs: Any) -> Markup:
        if isinstance(block, list):
            return Markup().join(self._part(context, part, *args, **kwargs) for part in block)
        if isinstance(block, dict) and block.get("content_block_type"):
            return Markup(super().render_content_block(context, block, *args, **kwargs))
        return Markup() if block is None else escape(block)

    def _part(self, context: Any, part: Any, *args: Any, **kwargs: Any) -> Markup:
        content = self.render_content_block(context, part, *args, **kwargs)
        return content if isinstance(part, dict) else Markup("<span>{}</span>").format(content)

    def render_string_template(self, template: Any) -> Markup:
        if not isinstance(template, dict):
            return escape(template)
        # Parameters that are no strings would be written as they are; a tooltip always is.
        params = {name: str(value) for name, value in (template.get("params") or {}).items()}
        plain = {name: value for name, value in template.items() if name != "tooltip"}
        text = str(escape(template.get("template", "")))
        return Markup(super().render_string_template(plain | {"params": params, "template": text}))


def _html(write: Callable[..., str]) -> Callable[..., Markup]:
    return lambda *args, **kwargs: Markup(write(*args, **kwargs))


class Validation(ValidationResultsPageRenderer):
    """The page of one run, without the name of a file or table that a manifest in memory does not have."""

    @classmethod
    def _render_validation_header(cls, validation_results: Any) -> Any:
        header = super()._render_validation_header(validation_results)
        told = header.subheader.string_template
        told["template"] = told["template"].replace("${data_asset} ${data_asset_name}\n ", "")
        return header


class Results(ValidationResultsTableContentBlockRenderer):
    """The table of results, with a place beneath each expectation for `training.offenders`."""

    @classmethod
    def _get_content_block_fn(cls, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        write = super()._get_content_block_fn(*args, **kwargs)

        def rows(*, result: Any, **others: Any) -> list[list[Any]]:
            ((status, told, *rest),) = write(result=result, **others)
            place = _Place((result.expectation_config.meta or {}).get("rule", ""))
            return [[status, [*(told if isinstance(told, list) else [told]), place], *rest]]

        return rows


class _Place(RenderedComponentContent):
    def __init__(self, rule: str) -> None:
        super().__init__("offenders")
        self.rule = rule

    def to_json_dict(self) -> dict[str, Any]:
        return super().to_json_dict() | {"rule": self.rule}
