"""YAML without its surprises: plain values of declared types, and every mistake with its line.

PyYAML reads 1e-3 as a text, 017 as 15 and no as False, lets a repeated key win silently, and expands
a few nested aliases to gigabytes.
"""

import contextlib
import difflib
import math
import re
import types
import typing

import yaml

from .errors import printable

MAX_DEPTH = 20


class _Loader(yaml.SafeLoader):
    """SafeLoader that composes plain values only.

    Refuses aliases (a few nested ones expand to gigabytes), tags and deep nesting.
    """

    depth = 0  # of the next node

    def compose_node(self, parent, index):
        event, problem = self.peek_event(), None
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases (*name) are not supported; write the value again"
        elif event.tag is not None:
            problem = f"tags ({shorten(event.tag)}) are not supported"
        elif self.depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Reader:
    """Turns YAML nodes into values of the declared types, and collects every error on the way."""

    def __init__(self, source: str, *, lines: bool = True):
        self.source, self.lines, self.errors = source, lines, []

    def fail(self, node: yaml.Node | None, message: str) -> None:
        line = f":{node.start_mark.line + 1}" if node is not None and self.lines else ""
        self.errors.append(printable(f"{self.source}{line}: {message}"))

    def compose(self, text: str, depth: int = 0) -> yaml.Node | None:
        """The root node of text, None if it is empty or an error was noted.

        depth: how deep in the configuration the text stands.
        """
        try:
            loader = _Loader(text)
            loader.depth = depth
            return loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = mark.line, mark.column
            reason = ", ".join(part for part in (error.context, error.problem) if part)
            reason += "; use spaces instead of tabs" if "'\\t'" in reason else ""
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
            reason = f"found the character {chr(error.character)!r}; is this a text file?"
        except (ValueError, OverflowError):  # "\UFFFFFFFF", which PyYAML does not check
            line, column, reason = loader.line, loader.column, "found a number out of range"
        where = f":{line + 1}:{column + 1}" if self.lines else ""
        self.errors.append(printable(f"{self.source}{where}: cannot be read: {reason}"))
        return None

    def mapping(self, node: yaml.Node, name: str, expected: str) -> dict:
        """The entries of a mapping node: {key: (node of the key, node of the value)}."""
        if _is_null(node):
            return {}  # "training:" with nothing under it
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{name}: expected {expected}, found {_describe(node)}")
            return {}
        entries = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, f"{name}: expected a name as key, found {_describe(key)}")
            elif key.tag.endswith(":merge"):
                self.fail(key, f"{name}: merge keys (<<) are not supported")
            elif key.value in entries:
                first = entries[key.value][0].start_mark.line + 1
                where = f" (first in line {first})" if self.lines else ""
                self.fail(key, f"{shorten(key.value)}: this key is given twice{where}")
            else:
                entries[key.value] = key, value
        return entries

    def plain(self, node: yaml.Node, name: str):
        """A value without a declared type (an option of the user's ReverseModel)."""
        if isinstance(node, yaml.MappingNode):
            entries = self.mapping(node, name, "a mapping")
            return {k: self.plain(v, f"{name}.{shorten(k)}") for k, (_, v) in entries.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, f"{name}[{i}]") for i, item in enumerate(node.value)]
        if _is_quoted(node):
            return node.value
        try:
            value = _parse_plain(node.value)
            doubtful = isinstance(value, float) and not math.isfinite(value)
        except ValueError:
            value = node.value  # 017, 08, 1_0, 1:30, no, 2026-01-31, .inf: YAML readers disagree
            doubtful = not node.tag.endswith(":str") or re.match("[+-]?0[0-9]", value)
        if doubtful:
            expected = "a finite number, true, false, null or a word (in quotes if in doubt)"
            self.fail(node, f"{name}: expected {expected}, found {_describe(node)}")
        return value

    def value(self, node: yaml.Node, declared: type, name: str):
        """The node as a value of the declared type; an error is noted if it is not one."""
        wanted = declared
        if typing.get_origin(declared) in (types.UnionType, typing.Union):  # X | None
            if _is_null(node):
                return None
            wanted = next(a for a in typing.get_args(declared) if a is not types.NoneType)
        if wanted == list[int] and isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value, start=1)
            return [self.value(item, int, f"{name}, number {i}") for i, item in items]
        if isinstance(node, yaml.ScalarNode):
            if wanted is str:
                return node.value
            parse = {int: _parse_int, float: _parse_float, bool: _parse_bool}.get(wanted)
            if parse and not _is_quoted(node):
                with contextlib.suppress(ValueError):
                    return parse(node.value)
        self.fail(node, f"{name}: expected {_type_name(declared)}, found {_describe(node)}")
        return None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")


def _is_quoted(node: yaml.ScalarNode) -> bool:
    return node.style is not None


def _parse_null(text: str) -> None:
    if text not in ("", "~", "null", "Null", "NULL"):
        raise ValueError


def _parse_bool(text: str) -> bool:
    if text not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise ValueError
    return text.lower() == "true"


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text):  # 017, 1_0 and 1:30 are YAML 1.1's
        raise ValueError
    return int(text)


def _parse_float(text: str) -> float:
    if not re.fullmatch(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError
    return float(text)


def _parse_plain(text: str):
    """The null, bool, int or float that text is without quotes. Raises ValueError."""
    for parse in (_parse_null, _parse_bool, _parse_int, _parse_float):
        with contextlib.suppress(ValueError):
            return parse(text)
    raise ValueError


def _type_name(declared: type) -> str:
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    names |= {list[int]: "a list such as [8, 8]", type(None): "null"}
    if typing.get_origin(declared) in (types.UnionType, typing.Union):
        return " or ".join(names[a] for a in typing.get_args(declared))
    return names[declared]


def _describe(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if _is_quoted(node):
        return f"the text '{shorten(node.value)}' in quotes"
    return f"'{shorten(node.value)}'" if node.value else "nothing"


def shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def suggestion(word: str, known) -> str:
    by_lower = {name.lower(): name for name in known}  # t for T
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"; did you mean {by_lower[near[0]]}?" if near else f"; known: {', '.join(known)}"


class Dumper(yaml.SafeDumper):
    """Writes values such that Reader reads them back as they were."""

    def ignore_aliases(self, data):
        return True

    def represent_mapping(self, tag, mapping, flow_style=None):
        return super().represent_mapping(tag, mapping, flow_style=False)  # a line for each key

    def represent_text(self, text: str) -> yaml.Node:
        style = None if text.isidentifier() else '"'  # the text "1e-3" is not the number
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


Dumper.add_representer(str, Dumper.represent_text)
