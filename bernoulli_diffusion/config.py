"""Every setting of a run: its name, type, default, range and meaning; and the strict loader.

To add a setting, add a field to one of the three dataclasses. The loader, --set, the config.yaml that
is written into the results folder and the README's table (tested) all follow from it.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .errors import UserError, cannot_open, printable

MAX_CONFIG_BYTES = 1_000_000


def setting(default, help, *, least=None, above=None, most=None, choices=None):
    """A dataclass field with its meaning and range: least <= value <= most, value > above."""
    metadata = {"help": help, "least": least, "above": above, "most": most, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The forward process and the network."""

    T: int = setting(1000, "steps of the diffusion process", least=1, most=1_000_000)
    num_sample_steps: int = setting(
        1, "times t drawn for each training string at each step", least=1, most=10_000
    )
    reverse_model: dict = setting({}, "options handed to ReverseModel.__init__, by name")


@dataclass
class TrainingConfig:
    """How the network is trained, and what is measured on the way."""

    epochs: int | None = setting(
        None, "passes over train.txt; default: enough for about 10,000 steps", least=1
    )
    lr: float = setting(1e-3, "peak learning rate of AdamW", above=0, most=10)
    lr_schedule: str = setting(
        "cosine", "after the warm-up: cosine (falls to 0) or constant", choices=("cosine", "constant")
    )
    warmup_steps: int = setting(100, "steps over which the learning rate rises from 0", least=0)
    weight_decay: float = setting(0.0, "decoupled weight decay of AdamW", least=0, most=10)
    clip_thresh: float = setting(1.0, "largest norm of the gradient; larger ones are scaled", above=0)
    ema_decay: float = setting(
        0.999, "decay per step of the averaged weights; 0 turns averaging off", least=0, most=0.999999
    )
    seed: int = setting(0, "seed of everything random", least=0, most=2**63 - 1)
    validate_every_n_epochs: int | None = setting(
        None, "epochs between validations; default: about 20 validations in a run", least=1
    )
    save_every_n_epochs: int | None = setting(
        None, "epochs between checkpoints; default: one at each validation", least=1
    )
    keep_checkpoints: int | None = setting(
        3, "keep the last so many checkpoints, and the best; null keeps all", least=1
    )
    num_examples: int = setting(
        10, "strings in each frame of the sample evolution GIF", least=1, most=10_000
    )
    num_val_samples: int = setting(
        1000, "strings generated at each validation", least=1, most=10_000_000
    )
    val_batch_size: int = setting(1000, "strings generated at a time", least=1, most=10_000_000)
    num_bound_draws: int = setting(
        4096, "least number of (string, t) draws behind each validation bound", least=2, most=10**9
    )
    patience: int | None = setting(
        None, "stop after this many validations without a better validation bound", least=1
    )
    max_minutes: float | None = setting(None, "stop after this many minutes", above=0, most=1e6)


@dataclass
class DataConfig:
    """How the strings are batched and drawn."""

    batch_size: int = setting(256, "strings per training step", least=1, most=10_000_000)
    shape: list[int] | None = setting(
        None, "[rows, columns]: draw each string as an image", least=1, most=100_000
    )


@dataclass
class Config:
    """The whole of config.yaml. Every section and key may be left out."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)


SECTIONS = {section.name: section.default_factory for section in dataclasses.fields(Config)}


# ---------------------------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases: a few nested ones expand to gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)


class _Reader:
    """Turns YAML nodes into values of the declared types, and collects every error on the way."""

    def __init__(self, source: str, *, lines: bool = True):
        self.source, self.lines, self.errors = source, lines, []

    def fail(self, node: yaml.Node | None, message: str) -> None:
        line = f":{node.start_mark.line + 1}" if node is not None and self.lines else ""
        self.errors.append(printable(f"{self.source}{line}: {message}"))

    def compose(self, text: str) -> yaml.Node | None:
        """The root node of text, None if it is empty or an error was noted."""
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f":{mark.line + 1}:{mark.column + 1}" if mark and self.lines else ""
            reason = error.problem or error.context
            self.errors.append(printable(f"{self.source}{where}: this is not YAML: {reason}"))
        except yaml.YAMLError as error:
            self.errors.append(printable(f"{self.source}: this is not YAML: {str(error).strip()}"))
        except RecursionError:
            self.errors.append(printable(f"{self.source}: nested too deeply"))
        finally:
            loader.dispose()
        return None

    def mapping(self, node: yaml.Node, name: str, expected: str) -> dict[str, yaml.Node]:
        """The entries of a mapping node by key, duplicates refused."""
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return {}  # "training:" with nothing under it
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{name}: expected {expected}, found {_describe(node)}")
            return {}
        entries = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, f"{name}: expected a name as key, found {_describe(key)}")
            elif key.value in entries:
                first = entries[key.value].start_mark.line + 1
                self.fail(key, f"{key.value}: this key is given twice (first in line {first})")
            else:
                entries[key.value] = value
        return entries

    def plain(self, node: yaml.Node, name: str):
        """A value without a declared type (an option of the user's ReverseModel)."""
        if isinstance(node, yaml.MappingNode):
            entries = self.mapping(node, name, "a mapping")
            return {key: self.plain(value, f"{name}.{key}") for key, value in entries.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, name) for item in node.value]
        if node.style in ("'", '"', "|", ">"):
            return node.value
        for parse in (_parse_null, _parse_bool, _parse_int, _parse_float):
            try:
                return parse(node.value)
            except ValueError:
                continue
        return node.value

    def value(self, node: yaml.Node, declared: type, name: str):
        """The node as a value of the declared type; an error is noted if it is not one."""
        try:
            return _convert(node, declared)
        except ValueError:
            expected = _type_name(declared)
            self.fail(node, f"{name}: expected {expected}, found {_describe(node)}")
            return None


def _parse_null(text: str) -> None:
    if text not in ("", "~", "null", "Null", "NULL"):
        raise ValueError


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,19})", text):  # 017, 1_0 and 1:30 are YAML 1.1's
        raise ValueError
    return int(text)


def _parse_float(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError
    return float(text)


def _convert(node: yaml.Node, declared: type):
    """The node's value as the declared type. Raises ValueError."""
    if typing.get_origin(declared) in (types.UnionType, typing.Union):  # X | None
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return None
        declared = next(a for a in typing.get_args(declared) if a is not types.NoneType)
    if declared == list[int]:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError
        return [_convert(item, int) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError
    if declared is str:
        return node.value
    if node.style in ("'", '"'):
        raise ValueError
    return {int: _parse_int, float: _parse_float, bool: _parse_bool}[declared](node.value)


def _type_name(declared: type) -> str:
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    names |= {list[int]: "a list such as [8, 8]", type(None): "nothing"}
    if typing.get_origin(declared) in (types.UnionType, typing.Union):
        return " or ".join(names[a] for a in typing.get_args(declared))
    return names[declared]


def _describe(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    shown = node.value if len(node.value) <= 40 else node.value[:37] + "..."
    return f"'{shown}'" if shown else "nothing"


def _range_error(name: str, value, metadata) -> str | None:
    """What is wrong with a value of the right type, or None."""
    if metadata["choices"] and value not in metadata["choices"]:
        near = _suggestion(str(value), metadata["choices"])
        return f"{name}: expected {' or '.join(metadata['choices'])}, found '{value}'{near}"
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        if not math.isfinite(number):
            return f"{name}: expected a finite number, found {number}"
        if metadata["least"] is not None and number < metadata["least"]:
            return f"{name}: expected at least {metadata['least']}, found {number}"
        if metadata["above"] is not None and number <= metadata["above"]:
            return f"{name}: expected more than {metadata['above']}, found {number}"
        if metadata["most"] is not None and number > metadata["most"]:
            return f"{name}: expected at most {metadata['most']}, found {number}"
    return None


def _suggestion(word: str, known) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def _read_into(config: Config, node: yaml.Node | None, reader: _Reader) -> None:
    """Set what a YAML document says on config; errors go to reader."""
    if node is None:
        return
    expected = f"a mapping with sections {', '.join(SECTIONS)}"
    for section_name, section_node in reader.mapping(node, "the file", expected).items():
        if section_name not in SECTIONS:
            hint = _misplaced(section_name) or _suggestion(section_name, SECTIONS)
            reader.fail(section_node, f"{section_name}: unknown section{hint}")
            continue
        section = getattr(config, section_name)
        known = {f.name: f for f in dataclasses.fields(section)}
        declared = typing.get_type_hints(type(section))
        entries = reader.mapping(section_node, section_name, "keys with values")
        for key, value_node in entries.items():
            name = f"{section_name}.{key}"
            if key not in known:
                hint = _misplaced(key) or _suggestion(key, known)
                reader.fail(value_node, f"{name}: unknown key{hint}")
                continue
            if declared[key] is dict:
                options = reader.mapping(value_node, name, "options with values")
                value = {k: reader.plain(v, f"{name}.{k}") for k, v in options.items()}
                getattr(section, key).update(value)
                continue
            errors_before = len(reader.errors)
            value = reader.value(value_node, declared[key], name)
            if len(reader.errors) > errors_before:
                continue
            problem = _range_error(name, value, known[key].metadata)
            if key == "shape" and value is not None and len(value) != 2:
                problem = f"{name}: expected two numbers, [rows, columns], found {len(value)}"
            if problem:
                reader.fail(value_node, problem)
            else:
                setattr(section, key, value)


def _misplaced(key: str) -> str:
    """A hint if key is known, but in another place."""
    for section_name, make in SECTIONS.items():
        if key in {f.name for f in dataclasses.fields(make)}:
            return f"; it belongs in the section {section_name}"
    return ""


def parse_config(text: str, source: str) -> Config:
    """The configuration in a YAML text. source names it in errors.

    Raises UserError with a line for each mistake: file, line, key, and the nearest known key.
    """
    config, reader = Config(), _Reader(source)
    _read_into(config, reader.compose(text), reader)
    if reader.errors:
        raise UserError("\n".join(reader.errors))
    return config


def load_config(path: Path) -> Config:
    """The configuration in a file; all defaults if there is no such file."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise cannot_open(path, error) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise UserError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes, this cannot be a config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    return parse_config(text, str(path))


def apply_overrides(config: Config, overrides: list[str]) -> None:
    """Set `section.key=value` assignments (train.py --set) on config, with the loader's checks.

    Raises UserError with a line for each mistake.
    """
    errors = []
    for override in overrides:
        name, equals, text = override.partition("=")
        path = name.strip().split(".")
        reader = _Reader(f"--set {override}", lines=False)
        if not equals or len(path) < 2 or not all(path):
            reader.fail(None, "expected section.key=value, such as training.lr=0.001")
        else:
            node = reader.compose(text) or yaml.ScalarNode("tag:yaml.org,2002:null", "")
            for key in reversed(path):
                key_node = yaml.ScalarNode("tag:yaml.org,2002:str", key, node.start_mark)
                mapping = yaml.MappingNode("tag:yaml.org,2002:map", [(key_node, node)])
                mapping.start_mark = node.start_mark
                node = mapping
            if not reader.errors:
                _read_into(config, node, reader)
        errors += reader.errors
    if errors:
        raise UserError("\n".join(errors))


def to_yaml(config: Config) -> str:
    """The configuration as YAML that load_config reads back, each key with its meaning."""
    lines = []
    for section in dataclasses.fields(config):
        lines.append(f"{section.name}:")
        values = getattr(config, section.name)
        for key in dataclasses.fields(values):
            value = getattr(values, key.name)
            text = yaml.safe_dump({key.name: value}, default_flow_style=None, sort_keys=False, width=10**9)
            lines.append(f"  # {key.metadata['help']}")
            lines += ["  " + line for line in text.rstrip("\n").split("\n")]
        lines.append("")
    return "\n".join(lines)
