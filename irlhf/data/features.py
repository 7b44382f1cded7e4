"""Column types of a data set, as used by the Hugging Face Hub; each column has one type in all rows.

A feature is the name of a scalar type, a list with one feature, or a dict of features by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from irlhf.core.errors import DataError
from irlhf.core.example import Where

Feature: TypeAlias = "str | list[Feature] | dict[str, Feature]"

TEXT, NULL = "string", "null"  # null: no value seen so far
_WORD = 2**63  # integers beyond int64 are floats
_BOOL, _WHOLE, _NUMBER = "bool", "int64", "float64"
_KINDS = {TEXT: "text", NULL: "nothing", _BOOL: "true or false", _WHOLE: "a number", _NUMBER: "a number"}


@dataclass
class Columns:
    """The column types of the rows so far."""

    features: dict[str, Feature] = field(default_factory=dict)
    known: dict[str, Feature] = field(default_factory=dict)  # types that are fixed in advance

    def take(self, rows: Iterable[Mapping[str, Any]], where: Where) -> None:
        """Add rows. Raises DataError, without adding any, if a column would have two types."""
        features: Feature = self.features
        for row in rows:
            try:
                features = _merged(_merged(features, feature_of(row)), self.known)
            except ValueError as error:
                remedy = "each column needs one type; fix the row, or use --on-bad-row skip"
                raise DataError(f"{where}: {error}; {remedy}") from error
        assert isinstance(features, dict)
        self.features = features


def feature_of(value: object, name: str = "") -> Feature:
    """Return the type of a JSON value. Raises ValueError for a list of several types."""
    if isinstance(value, Mapping):
        return {key: feature_of(item, _inside(name, key)) for key, item in value.items()}
    if isinstance(value, list):
        kind: Feature = NULL
        for item in value:
            kind = _merged(kind, feature_of(item, name), name)
        return [kind]
    if value is None or isinstance(value, str):
        return NULL if value is None else TEXT
    if isinstance(value, bool):
        return _BOOL
    return _WHOLE if isinstance(value, int) and -_WORD <= value < _WORD else _NUMBER


def as_yaml(feature: Feature) -> dict[str, Any]:
    """Return a feature in the YAML format of a data card."""
    if isinstance(feature, str):
        return {"dtype": feature}
    if isinstance(feature, dict):
        return {"struct": fields_as_yaml(feature)}
    inside = as_yaml(feature[0])
    return {"list": inside.get("dtype") or inside.get("struct") or inside}


def fields_as_yaml(features: Mapping[str, Feature]) -> list[dict[str, Any]]:
    """Return the features of an object in the YAML format of a data card."""
    return [{"name": name, **as_yaml(feature)} for name, feature in features.items()]


def described(feature: Feature) -> str:
    """Return a readable description of a feature."""
    if isinstance(feature, str):
        return feature
    if isinstance(feature, list):
        return f"list of {described(feature[0])}"
    return f"{{{', '.join(f'{name}: {described(inner)}' for name, inner in feature.items())}}}"


def _merged(left: Feature, right: Feature, name: str = "") -> Feature:
    """Return the common type. Raises ValueError with the name of the field if there is none."""
    if NULL in (left, right) or left == right:
        return right if left == NULL else left
    if isinstance(left, dict) and isinstance(right, dict):
        return {**left, **{key: _merged(left.get(key, NULL), kind, _inside(name, key)) for key, kind in right.items()}}
    if isinstance(left, list) and isinstance(right, list):
        return [_merged(left[0], right[0], name)]
    if left in (_WHOLE, _NUMBER) and right in (_WHOLE, _NUMBER):
        return _NUMBER
    raise ValueError(f"'{name:.80}' is {_kind(right)} here and {_kind(left)} elsewhere")


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _kind(feature: Feature) -> str:
    return "an object" if isinstance(feature, dict) else "a list" if isinstance(feature, list) else _KINDS[feature]
