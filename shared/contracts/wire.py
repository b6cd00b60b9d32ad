"""The two base models of the wire. Requests refuse what they do not know; readers of answers and events ignore it."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel


def exactly_one_of(*names: str) -> ConfigDict:
    """What a model says of itself whose validator wants one of these fields: without it the description would promise more."""
    return ConfigDict(
        json_schema_extra={"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}
    )


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Of a number in a request's body: to JSON 5.0 is the integer 5. Stands after the field's bounds, or they leave its description.
WHOLE = BeforeValidator(_whole)


class Request(BaseModel):
    """Something a caller sends: camelCase, frozen, unknown fields refused by name."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class Wire(BaseModel):
    """Something we answer or stream: camelCase, frozen; a newer writer may add fields, an older reader ignores them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def wire_json(self) -> str:
        """Compact JSON as it stands on the wire: camelCase, fields without a value left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
