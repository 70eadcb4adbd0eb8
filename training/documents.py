"""What the pipeline writes down: frozen records that read like their JSON, by attribute or by key."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A frozen record; ``record["key"]`` reads what ``record.key`` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def tree(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return self.model_dump(mode="json")
