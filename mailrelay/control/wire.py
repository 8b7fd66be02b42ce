"""Values as JSON and back, for the control socket of the system's mailrelay.

    packed(value)              what `json.dumps` takes
    unpacked(kind, value)      the value again, as the type annotation `kind` says. Raises ValueError for any other JSON

Dataclasses and named tuples are lists of their fields, dictionaries lists of pairs, bytes are base64, enums their values.
Only what the annotation names is ever made: JSON from another account cannot make a value of another type.
"""

import binascii
import enum
import types
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def packed(value: object) -> object:
    """The value for `json.dumps`."""
    match value:
        case bytes():
            return b64encode(value).decode("ascii")
        case enum.Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple() | set() | frozenset():
            return [packed(each) for each in value]
        case dict():
            return [[packed(key), packed(each)] for key, each in value.items()]
        case _ if is_dataclass(value):
            return [packed(getattr(value, each.name)) for each in fields(value)]
    raise TypeError(f"{type(value)} has no form on the wire")


def unpacked(kind: type[T], value: object) -> T:
    """The value of type `kind` from what `packed` made. Raises ValueError."""
    found: T = _unpacked(kind, value)
    return found


def _unpacked(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in typing.get_args(kind) if one is not type(None))
        return None if value is None else _unpacked(inner, value)
    if origin in (list, tuple, Sequence):
        return _sequence(kind, origin, _list(value))
    if origin is dict:
        key, of = typing.get_args(kind)
        pairs = [(_unpacked(key, one), _unpacked(of, each)) for one, each in map(_pair, _list(value))]
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)
    if kind in _SIMPLE:
        return _SIMPLE[kind](value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return _record(kind, value)


def _record(kind: Any, value: Any) -> Any:
    names = [each.name for each in fields(kind)] if is_dataclass(kind) else getattr(kind, "_fields", None)
    if names is None or len(_list(value)) != len(names):
        raise ValueError("not of the expected form")
    hints = typing.get_type_hints(kind)
    return kind(*(_unpacked(hints[name], one) for name, one in zip(names, value, strict=True)))


def _sequence(kind: Any, origin: Any, value: list[Any]) -> Any:
    of = typing.get_args(kind)
    if origin is tuple and of[-1] is not Ellipsis:
        if len(of) != len(value):
            raise ValueError("not of the expected length")
        return tuple(_unpacked(one, each) for one, each in zip(of, value, strict=True))
    found = [_unpacked(of[0], each) for each in value]
    return tuple(found) if origin is tuple else found


def _pair(value: object) -> tuple[Any, Any]:
    one, two = _list(value)
    return one, two


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _checked(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"not {kind.__name__}")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return b64decode(_checked(str, value), validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return float(value)


_SIMPLE: dict[Any, Callable[[Any], Any]] = {
    bytes: _bytes,
    float: _float,
    bool: partial(_checked, bool),
    int: partial(_checked, int),
    str: partial(_checked, str),
}
