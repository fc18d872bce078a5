"""columns.yaml: what was decided about each column, for people to read and to change."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from ..system.errors import UserError, printable
from ..system.files import read_text
from .columns import GAPS, SYNONYMS, TYPES, Column
from .encoding import Encoding

WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # which YAML takes for others
MOST_OF_A_KEY = 1000  # characters, beyond which YAML wants a mark before it
KEYS = ("type", "levels", "bins", "missing", "from")
HEAD = """\
# {what}
# {size}
#
# To change something, edit it here and run the same command again:
#   {command}
# type: yes/no | category | ordered (levels: in their order) | whole number | number | date | left out
#   | weight (how much each row counts)
# missing: a value (the model learns when there is none) | unknown (gaps are no data)
# bins: at most so many for numbers (up to {levels} different ones are each kept)
"""


class Wish(NamedTuple):
    """What columns.yaml or the command line asks for one column; None where it does not say."""

    type: str | None = None
    levels: list[str] | None = None
    bins: int | None = None
    gaps: str | None = None


def write(encoding: Encoding, what: str, size: str, command: str, levels: int) -> bytes:
    """The text of columns.yaml."""
    lines = [
        HEAD.format(what=printable(what), size=size, command=printable(command), levels=levels)
    ]
    for column in encoding.columns:
        name = _scalar(column.name)
        lines.append(f"{name}:" if len(name) < MOST_OF_A_KEY else f"? {name}\n:")
        comment = column.reason
        if column.numbers and column.has_bits and not column.bins:
            comment += f"; each is kept, {_bits(column)}"
        lines.append(f"  type: {_with_comment(column.type, comment)}")
        lines += [f"  {line}" for line in _details(column)]
        lines.append("")
    return ("\n".join(lines)).encode()


def _details(column: Column) -> list[str]:
    lines = []
    if column.type == "determined":
        lines.append(f"from: {_list(column.sources)}")
    elif column.numbers:
        if column.bins:
            lines.append(_with_comment(f"bins: {column.bins}", _bits(column)))
    elif column.has_bits:
        levels = [t for texts in column.texts for t in texts]
        order = {"ordered": "from low to high; "}.get(column.type, "")
        lines.append(_with_comment(f"levels: {_list(levels)}", order + _bits(column)))
    if column.gaps and column.type not in ("left out", "determined", "weight"):
        lines.append(f"missing: {column.gaps}")
    return lines


def _bits(column: Column) -> str:
    return f"{column.width} bit{'' if column.width == 1 else 's'}"


def _with_comment(text: str, comment: str) -> str:
    return f"{text}  # {printable(comment)}" if comment else text


def _list(texts: list[str]) -> str:
    return "[" + ", ".join(map(_scalar, texts)) + "]"


def _scalar(text: str) -> str:
    """A text as YAML; quoted where another reader might take it for something else than text."""
    if re.fullmatch(r"[^\W\d_][\w -]*\w|[^\W\d_]", text) and text.lower() not in WORDS:
        return text
    if re.fullmatch(r"-?\d+(\.\d+)?", text) and len(text) < 15:
        return text
    # what YAML has no room for is escaped; the two halves of one character would be two there
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def read(path: Path) -> dict[str, Wish]:
    """What columns.yaml says. Raises UserError with file, line and cure."""
    name = printable(path)
    try:
        node = yaml.compose(read_text(path), yaml.BaseLoader)  # every scalar is text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{name}{line}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{name}: expected an entry for each column, 'name:' and below it 'type: ...'"
        )
    wishes: dict[str, Wish] = {}
    for key, entry in node.value:
        place = f"{name}:{key.start_mark.line + 1}"
        if key.value in wishes:
            raise UserError(f"{place}: a second entry for {key.value!r}; remove one")
        wishes[key.value] = _wish(entry, place, name)
    return wishes


def _wish(entry, place: str, name: str) -> Wish:
    if not isinstance(entry, yaml.MappingNode):
        raise UserError(f"{place}: expected 'type: ...' below the name of the column")
    found = {}
    for key, value in entry.value:
        place = f"{name}:{key.start_mark.line + 1}"
        if key.value not in KEYS:
            raise UserError(f"{place}: {key.value!r} is not known; there are {', '.join(KEYS)}")
        if key.value in ("levels", "from"):
            if not isinstance(value, yaml.SequenceNode):
                raise UserError(f"{place}: expected a list, [a, b, c]")
            found[key.value] = [v.value for v in value.value]
        else:
            found[key.value] = value.value
        if key.value == "bins":
            if not re.fullmatch(r"\d{1,3}", value.value) or int(value.value) < 2:
                raise UserError(f"{place}: expected a number of bins from 2 to 999")
            found["bins"] = int(value.value)
        if key.value == "missing" and value.value not in GAPS:
            raise UserError(f"{place}: expected one of: {', '.join(GAPS)}")
        if key.value == "type":
            found["type"] = known_type(value.value, place)
    return Wish(found.get("type"), found.get("levels"), found.get("bins"), found.get("missing"))


def known_type(text: str, place: str) -> str:
    """The type that a person means. Raises UserError with those that there are."""
    found = SYNONYMS.get(text.strip().lower(), text.strip().lower())
    if found not in TYPES:
        raise UserError(f"{place}: {text!r} is no type; there are {', '.join(TYPES)}")
    return found
