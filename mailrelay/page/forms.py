"""Reads forms and queries: `application/x-www-form-urlencoded`, as browsers send it. Pure.

No form of the page has files, so the parser of Python's library is enough.
"""

from urllib.parse import parse_qsl

MAX_FIELDS = 12_000
"""Fields of a form, at most. A selection has one for each message."""


class TooManyFields(ValueError):
    """A form or a query has more than MAX_FIELDS fields."""


class Form:
    """The fields of a form, by name, in order. Text has LF line ends."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def one(self, name: str) -> str:
        """The first value of the fields with this name; "" if there is none."""
        return self.all(name)[0] if self.all(name) else ""

    def all(self, name: str) -> list[str]:
        """The values of all fields with this name, in order."""
        return self._fields.get(name, [])

    def __contains__(self, name: str) -> bool:
        return name in self._fields


def read_form(body: bytes) -> Form:
    """The fields in the body of a request, or in the query of an address. Raises TooManyFields."""
    fields: dict[str, list[str]] = {}
    text = body.decode("ascii", "replace")
    # The parser's own limit raises an error that cannot be told from others.
    if text.count("&") >= MAX_FIELDS:
        raise TooManyFields(f"there are more than {MAX_FIELDS} fields")
    for name, value in parse_qsl(text, keep_blank_values=True):
        fields.setdefault(name, []).append(value.replace("\r\n", "\n").replace("\r", "\n"))
    return Form(fields)
