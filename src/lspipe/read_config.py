"""Read a configuration, with a line for each wrong value, and write its JSON schema and its reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import yaml
from pydantic import ValidationError

from lspipe.cell.numbers import shorten
from lspipe.config import Config
from lspipe.sections import A_NAME, LoadConfig

# Keys of earlier versions.
RENAMED = {"components": "predict", "checkpoint": "published", "load": "loads, a mapping of loads by their names"}
MOST = 20  # wrong values that get a line each


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses a key that occurs twice in a mapping: the first value would be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {shorten(key.value)} occurs twice; keep one")
            seen.add(name)
        return node


def read_yaml(where: object, text: str | bytes) -> Any:
    """Read YAML text, or JSON, which is YAML too.

    Raises:
        ValueError: The text is not UTF-8, is not YAML, or has a key twice. The message is one line that begins with
            ``where``.
    """
    try:
        return yaml.load(text if isinstance(text, str) else text.decode(), _UniqueKeys)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None


def parse_config(raw: Any) -> Config:
    """Check a configuration and fill in the defaults.

    Args:
        raw: What was read from YAML or JSON.

    Raises:
        ValueError: Keys or values are wrong. The message has a line for each, with the value and what is allowed.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        errors = error.errors()
        more = [f"config: {len(errors) - MOST} more values are wrong"] if len(errors) > MOST else []
        raise ValueError("\n".join([*map(_line, errors[:MOST]), *more])) from None


def read_load(values: dict[str, Any]) -> LoadConfig:
    """Read a load that is written as in a configuration.

    Raises:
        ValueError: A key or a value is wrong.
    """
    try:
        return LoadConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            _line({**first, "loc": ("loads", "-", *first["loc"])}).removeprefix("config: loads.-.")
        ) from None


def _line(error: Any) -> str:
    location = list(error["loc"])
    if is_key := location[-1:] == ["[key]"]:
        location[-2:] = [error["input"]]
    key = ".".join(map(str, location)) or "top level"
    match error["type"]:
        case "value_error" if not location:  # from Config, which names the key
            return f"config: {error['ctx']['error']}"
        case "value_error" if location[0] == "cases" or location[-1] == "generator":  # which name the key within
            return f"config: {key}.{error['ctx']['error']}"
        case "value_error":
            rule = str(error["ctx"]["error"])
        case "extra_forbidden" if location[-1] in RENAMED and (location[0] == "networks" or len(location) == 1):
            rule = f"is now called {RENAMED[location[-1]]}"
        case "extra_forbidden" | "invalid_key":
            rule = f"is not a key; allowed here: {', '.join(_at(location[:-1])['properties'])}"
        case "finite_number":
            rule = "must be a finite number"
        case "string_pattern_mismatch":
            rule = f"must be {A_NAME}"
        case _:
            node = {"type": "string", "pattern": ""} if is_key else _at(location)
            rule = f"must be {_allowed(node)}"
            if node.get("type") == "string" and isinstance(error["input"], bool | int | float | date):
                rule += "; put quotes around it"
            if "items" in node and isinstance(error["input"], str):
                rule += f"; for one item, write [{error['input']:.40}]"
    value = "is missing" if error["type"] == "missing" else f"= {shorten(error['input'])}"
    return f"config: {key:.200} {value}: {rule}"


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def reference() -> str:
    """Return a Markdown table of all keys."""
    rows = [("key", "must be", "default", "meaning"), ("---",) * 4, *_rows("", schema())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(key: str, node: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if "description" in node and key:
        default = f"`{json.dumps(node['default'])}`" if "default" in node else "required"
        yield f"`{key}`", _allowed(node), default, node["description"]
    node = _resolved(node)
    if "items" in node:
        yield from _rows(f"{key}[]", node["items"])
    for name, child in node.get("properties", {}).items():
        yield from _rows(f"{key}.{name}".lstrip("."), child)
    for child in node.get("patternProperties", {}).values():
        yield from _rows(f"{key}.{{{key.removesuffix('s')}}}", child)


def _allowed(node: dict[str, Any]) -> str:
    """Return the values that a part of the schema allows, in words."""
    if "anyOf" in node:
        return " or ".join(map(_allowed, node["anyOf"]))
    node = _resolved(node)
    match node:
        case {"enum": [*others, last]}:
            return f"{', '.join(others)} or {last}"
        case {"properties": keys}:
            return f"a mapping of {', '.join(keys)}"
        case {"items": item, "minItems": least, "maxItems": most}:
            return f"a list of {most if least == most else f'{least} to {most}'} items, each {_allowed(item)}"
        case {"items": item, "maxItems": most}:
            return f"a list of at most {most} items, each {_allowed(item)}"
        case {"items": item, "minItems": least}:
            return f"a list of at least {least} item{'s' * (least > 1)}, each {_allowed(item)}"
        case {"items": item}:
            return f"a list of items, each {_allowed(item)}"
        case {"patternProperties": named}:
            return f"a mapping of one name or more, each to {_allowed(*named.values())}"
        case {"type": "string", "pattern": _}:
            return A_NAME
        case {"type": "object"}:
            return "a mapping"
        case {"type": "null"}:
            return "null"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {node[bound]}" for bound, sign in signs.items() if bound in node)
    return f"{'an' if node['type'] == 'integer' else 'a'} {node['type']} {bounds}".rstrip()


def _at(location: Sequence[str | int]) -> dict[str, Any]:
    """Return the part of the schema for a location in the configuration."""
    node = schema()
    for step in location:
        match _resolved(node):
            case {"properties": keys}:
                node = keys[step]
            case {"items": item}:
                node = item
            case {"anyOf": [{"anyOf": kinds}, _] | kinds}:
                node = next(kind["items"] for kind in kinds if "items" in kind)
            case {"patternProperties": named}:
                (node,) = named.values()
            case {"additionalProperties": value}:
                node = value
    return _resolved(node)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    """Return the node that a reference stands for. For a mapping that may be null, it is the mapping."""
    match node:
        case {"$ref": name} | {"anyOf": [*_, {"$ref": name}, {"type": "null"}]}:
            return schema()["$defs"][name.rpartition("/")[2]]
    return node
