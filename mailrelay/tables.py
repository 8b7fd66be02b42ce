"""Reads a table of the settings file into a NamedTuple, by the annotations of its fields.

    class Queue(NamedTuple):
        directory: Annotated[Path, Expanded(grammar.path), Written(default="~/spool")]
        keep_sent: Annotated[float, grammar.duration(0, WEEK, 'from "0s" to "1w"')] = 604_800.0

    read(Queue, table, "queue", environ)     the table as a Queue
    keys(Queue)                              "directory", "keep_sent"

A setting is one field, annotated with its reader (`grammar`). A field without a reader is no setting: the caller gives its
value. A setting that the file does not have gets the default of its field, or of `Written`; without either it is an error.

Promises: the whole table is read, or SettingsError names the key, what is wrong and what is allowed. Unknown keys are
errors. Pure. Every command imports this file and the tables, so it uses nothing that is slow to import. The tables are not
dataclasses: to define one takes seven times as long (Python 3.11: 0.5 ms for each table, in each command).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from mailrelay.grammar import SettingsError, shown

Table = TypeVar("Table", bound=NamedTuple)


class Expanded(NamedTuple):
    """A reader that also gets the environment variables, for `~` and `$NAME`."""

    read: Callable[[object, Mapping[str, str]], object]


class Written(NamedTuple):
    """How a setting is written in the file, if its field does not say so.

    key: its name. default: the text that is read if the file does not have the setting. example: a line that sets it, for
    the error about a missing setting.
    """

    key: str = ""
    default: str | None = None
    example: str = ""


class _Setting(NamedTuple):
    """A setting. field: the name of its field. key: its name in the file."""

    field: str
    key: str
    reader: Expanded | Callable[[object], object]
    written: Written


def keys(cls: type[Any]) -> list[str]:
    """The names of the settings that a table may have."""
    return [setting.key for setting in _settings(cls)]


def as_table(value: object, key: str) -> dict[str, Any]:
    """The value at `key`, which must be a table."""
    if not isinstance(value, dict):
        raise SettingsError(f"{key}: expected a table, found {shown(value)}; write [{key}], and its settings below it")
    return value


def check_names(table: Iterable[str], allowed: Iterable[str], key: str) -> None:
    """Raises SettingsError if `table`, the table at `key`, has a name that is not allowed. key: "" for the whole file."""
    names = list(allowed)
    for name in table:
        if name not in names:
            # Imported here, because every command loads this file and hardly any needs difflib.
            import difflib  # noqa: PLC0415

            near = difflib.get_close_matches(name, names, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(names)}"
            raise SettingsError(f"{f'{key}.{name}' if key else name}: no such setting; {hint}")


def read(cls: type[Table], value: object, key: str, environ: Mapping[str, str], **given: object) -> Table:
    """The table at `key` as a `cls`. given: the values of fields that are no settings. Raises
    SettingsError."""
    table = as_table(value, key)
    settings = list(_settings(cls))
    check_names(table, (setting.key for setting in settings), key)
    by_key = {setting.key: setting for setting in settings}
    values = dict(given)
    # In the order of the file: the error is about the first mistake in it.
    for name, entry in table.items():
        values[by_key[name].field] = _value(by_key[name], entry, key, environ)
    for setting in settings:
        if setting.field in values or setting.field in cls._field_defaults:
            continue
        if setting.written.default is None:
            raise SettingsError(f"{key}.{setting.key}: missing; for example: {setting.written.example}")
        values[setting.field] = _value(setting, setting.written.default, key, environ)
    found = cls._field_defaults | values
    return cls._make(found[field] for field in cls._fields)


def _settings(cls: type[Any]) -> Iterator[_Setting]:
    for field, annotation in cls.__annotations__.items():
        match getattr(annotation, "__metadata__", ()):
            case (reader,):
                yield _Setting(field, field, reader, Written())
            case (reader, Written() as written):
                yield _Setting(field, written.key or field, reader, written)


def _value(setting: _Setting, entry: object, key: str, environ: Mapping[str, str]) -> object:
    try:
        if isinstance(setting.reader, Expanded):
            return setting.reader.read(entry, environ)
        return setting.reader(entry)
    except SettingsError as error:
        raise SettingsError(f"{key}.{setting.key}: {error}") from None
