"""Write column types as the features of a data card."""

from collections.abc import Mapping
from typing import Any

from irlhf.io.column_types import EXACT, FRACTION, INEXACT, WHOLE, ColumnType

_NAMES = {EXACT: WHOLE, INEXACT: FRACTION}  # as the Hub names them


def as_yaml(feature: ColumnType) -> dict[str, Any]:
    """Return a feature in the YAML format of a data card."""
    if isinstance(feature, str):
        return {"dtype": _NAMES.get(feature, feature)}
    if isinstance(feature, dict):
        return {"struct": fields_as_yaml(feature)}
    inside = as_yaml(feature[0])
    return {"list": inside.get("dtype") or inside.get("struct") or inside}


def fields_as_yaml(features: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
    """Return the features of an object in the YAML format of a data card."""
    return [{"name": name, **as_yaml(feature)} for name, feature in features.items()]


def described(feature: ColumnType) -> str:
    """Return a readable description of a feature."""
    if isinstance(feature, str):
        return _NAMES.get(feature, feature)
    if isinstance(feature, list):
        return f"list of {described(feature[0])}"
    return f"{{{', '.join(f'{name}: {described(inner)}' for name, inner in feature.items())}}}"
