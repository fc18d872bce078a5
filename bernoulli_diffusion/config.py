"""Every setting of a run: its name, type, default, range and meaning; and how they are read and written.

To add a setting, add a field to one of the three dataclasses. The loader, --set, the config.yaml
that is written into the results folder and the README's table (tested) all follow from it.
"""

import dataclasses
import math
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .schedule import SCHEDULES
from .system.errors import UserError
from .system.files import read_text
from .system.strict_yaml import MAX_DEPTH, Dumper, Reader, shorten, suggestion

MAX_CONFIG_BYTES = 100_000
MOST = 2**63 - 1  # of a number without another limit


def setting(default, help, *, least=None, above=None, most=None, choices=None):
    """A dataclass field with its meaning and range: least <= value <= most, value > above."""
    metadata = {"help": help, "least": least, "above": above, "most": most, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelConfig:
    """The forward process and the network."""

    process: str = setting(
        "bernoulli",
        "what the data are: bernoulli (strings of bits) or gaussian (real numbers)",
        choices=("bernoulli", "gaussian"),
    )
    T: int = setting(2000, "steps of the diffusion process", least=1, most=1_000_000)
    num_sample_steps: int = setting(
        1, "times t drawn for each training string at each step", least=1, most=10_000
    )
    network: str | None = setting(
        None,
        "forest, hidden_tree, mixture or tree_and_mlp: a network installed with the package, for bits; a"
        " reverse_model.py in RUN_DIR goes before it",
        choices=("forest", "hidden_tree", "mixture", "tree_and_mlp"),
    )
    reverse_model: dict = setting(  # noqa: RUF009
        {}, "options handed to ReverseModel.__init__, by name"
    )
    schedule: str = setting(
        "harmonic",
        "how data are lost: beta_t is 1 / (T - t + 1) (harmonic), or linear, or from a squared cosine",
        choices=tuple(SCHEDULES),
    )
    beta_min: float = setting(
        1e-4,
        "the first beta of linear; gaussian: also the least first one of harmonic",
        above=0,
        most=0.5,
    )
    beta_max: float = setting(0.02, "the last beta of linear", above=0, most=0.5)
    variance: str = setting(
        "beta",
        "gaussian: of a reverse step: beta, that of the posterior, or learned",
        choices=("beta", "posterior", "learned"),
    )


@dataclass
class TrainingConfig:
    """How the network is trained, and what is measured on the way."""

    epochs: int | None = setting(
        None,
        "passes over train.txt; default: as many as val asks for, at most about 20,000 steps, more for"
        " large files; with max_minutes as many as there is time for",
        least=1,
    )
    loss: str = setting(
        "bound",
        "what is lowered: the bound; gaussian also: simple, the squared error of the noise",
        choices=("bound", "simple"),
    )
    lr: float = setting(1e-3, "peak learning rate of AdamW", above=0, most=10)
    lr_schedule: str | None = setting(
        None,
        "after the warm-up: cosine (falls to 0), constant, or adaptive (constant until val stops"
        " improving, then from the best weights to 0); default: cosine if epochs is given, else adaptive",
        choices=("cosine", "constant", "adaptive"),
    )
    warmup_steps: int = setting(100, "steps over which the learning rate rises from 0", least=0)
    weight_decay: float = setting(0.0, "decoupled weight decay of AdamW", least=0, most=10)
    clip_thresh: float | None = setting(
        None,
        "largest norm of the gradient, in bits; larger ones are scaled to it. Default: three times the"
        " usual norm of the run's last hundred steps or so",
        above=0,
    )
    precision: str = setting(
        "float32",
        "of the network while it trains: float32, or bfloat16 where the processor has it",
        choices=("float32", "bfloat16"),
    )
    ema_decay: float = setting(
        0.999,
        "decay per step of the averaged weights, less in a young run; 0 turns averaging off",
        least=0,
        most=0.999999,
    )
    seed: int = setting(0, "seed of everything random", least=0, most=2**63 - 1)
    validate_every_n_epochs: int | None = setting(
        None,
        "epochs between validations; default: about 20 in a run, dense at first if it is adaptive",
        least=1,
    )
    save_every_n_epochs: int | None = setting(
        None, "epochs between checkpoints; default: one at each validation", least=1
    )
    save_every_minutes: float | None = setting(
        10.0, "minutes between checkpoints, in the middle of an epoch too", above=0, most=1e6
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
    num_val_steps: int | None = setting(
        24, "network calls behind each of these; null: the model's exact law, slower", least=1
    )
    val_batch_size: int = setting(1000, "strings generated at a time", least=1, most=10_000_000)
    num_bound_draws: int = setting(
        2048, "least number of (string, t) draws behind each validation bound", least=2, most=10**9
    )
    patience: int | None = setting(
        None, "stop after this many validations without a better validation bound", least=1
    )
    max_minutes: float | None = setting(None, "stop after this many minutes", above=0, most=1e6)


@dataclass
class DataConfig:
    """How the strings are batched and drawn."""

    batch_size: int = setting(256, "strings per training step", least=1, most=10_000_000)
    hold_out: float | None = setting(
        None,
        "without val.txt: the share of train.txt that is held out in its place; default: 0.1, 0.05 of"
        " 20,000 lines or more, nothing of fewer than 100; 0: nothing",
        least=0,
        most=0.5,
    )
    dequantize: float | None = setting(
        None,
        "gaussian: width of the uniform noise added to each number; 1 for whole numbers",
        above=0,
        most=1e6,
    )
    minimum: float | None = setting(
        None,
        "gaussian: samples are never less; default: 0 for counts, which never are",
        least=-1e30,
    )
    maximum: float | None = setting(
        None, "gaussian: samples are never more; default: that of counts which often reach it"
    )
    shape: list[int] | None = setting(  # noqa: RUF009
        None,
        "[rows, columns], or [rows, columns, 3] of colours: each string is an image",
        least=1,
        most=100_000,
    )


@dataclass
class Config:
    """The whole of config.yaml. Every section and key may be left out."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)


SECTIONS = {section.name: section.default_factory for section in dataclasses.fields(Config)}


# ---------------------------------------------------------------------------------------- reading


def _range_error(name: str, value, metadata) -> str | None:
    """What is wrong with a value of the right type, or None."""
    choices, least, above, most = (metadata[k] for k in ("choices", "least", "above", "most"))
    most = MOST if most is None else most
    if choices and value is not None and value not in choices:
        near = suggestion(value, choices)
        return f"{name}: expected {' or '.join(choices)}, found '{shorten(value)}'{near}"
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        expected = None
        if isinstance(number, float) and not math.isfinite(number):
            expected = "a finite number"
        elif least is not None and number < least:
            expected = f"at least {least}"
        elif above is not None and number <= above:
            expected = f"more than {above}"
        elif number > most:
            expected = f"at most {most}"
        if expected:
            return f"{name}: expected {expected}, found {shorten(str(number))}"
    return None


def _read_into(config: Config, node: yaml.Node | None, reader: Reader) -> None:
    """Set what a YAML document says on config; errors go to reader."""
    if node is None:
        return
    expected = f"a mapping with sections {', '.join(SECTIONS)}"
    sections = reader.mapping(node, "the file", expected)
    for section_name, (section_key, section_node) in sections.items():
        if section_name not in SECTIONS:
            hint = _misplaced(section_name) or suggestion(section_name, SECTIONS)
            reader.fail(section_key, f"{shorten(section_name)}: unknown section{hint}")
            continue
        section = getattr(config, section_name)
        known = {f.name: f for f in dataclasses.fields(section)}
        declared = typing.get_type_hints(type(section))
        entries = reader.mapping(section_node, section_name, "keys with values")
        for key, (key_node, value_node) in entries.items():
            name = f"{section_name}.{shorten(key)}"
            if key not in known:
                hint = _misplaced(key) or suggestion(key, known)
                reader.fail(key_node, f"{name}: unknown key{hint}")
                continue
            errors_before = len(reader.errors)
            if declared[key] is dict:
                options = reader.mapping(value_node, name, "options with values").items()
                values = {k: reader.plain(v, f"{name}.{shorten(k)}") for k, (_, v) in options}
                _merge(getattr(section, key), values)
                if isinstance(value_node, yaml.MappingNode) and not value_node.value:
                    getattr(section, key).clear()  # --set model.reverse_model={}
                continue
            value = reader.value(value_node, declared[key], name)
            if len(reader.errors) > errors_before:
                continue
            problem = _range_error(name, value, known[key].metadata)
            if key == "shape" and not problem and value is not None:
                problem = _shape_error(name, value)
            if problem:
                reader.fail(value_node, problem)
            else:
                setattr(section, key, value)


def _shape_error(name: str, shape: list[int]) -> str | None:
    """What is wrong with the shape of an image, or None."""
    if len(shape) == 3 and shape[2] != 3:
        return f"{name}: expected 3 colours as the third number, found {shape[2]}"
    if len(shape) not in (2, 3):
        return f"{name}: expected [rows, columns] or [rows, columns, 3], found {len(shape)} numbers"
    return None


def _merge(options: dict, more: dict) -> None:
    """Add more to options, and mappings in it to the mappings that options has there."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(options.get(key), dict):
            _merge(options[key], value)
        else:
            options[key] = value


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
    config, reader = Config(), Reader(source)
    _read_into(config, reader.compose(text), reader)
    if reader.errors:
        raise UserError("\n".join(reader.errors))
    return config


def load_config(path: Path) -> Config:
    """The configuration in a file; all defaults if there is no such file."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return Config()
    except OSError:
        pass  # it is there, and read_text says why it cannot be read
    return parse_config(read_text(path, "config", MAX_CONFIG_BYTES), str(path))


def keys_in(path: Path) -> set[str]:
    """The settings that a file which load_config accepts says something about, as "section.key"."""
    try:
        root = yaml.safe_load(path.read_bytes()) or {}
    except FileNotFoundError:
        return set()
    return {f"{section}.{key}" for section, keys in root.items() for key in keys or {}}


def apply_overrides(config: Config, overrides: list[str]) -> None:
    """Set `section.key=value` assignments (train.py --set) on config, with the loader's checks.

    Raises UserError with a line for each mistake.
    """
    errors = []
    for override in overrides:
        name, equals, text = override.partition("=")
        path = name.strip().split(".")
        reader = Reader(f"--set {override}", lines=False)
        if not equals or not all(path) or not 2 <= len(path) <= MAX_DEPTH:
            reader.fail(None, "expected section.key=value, such as training.lr=0.001")
        else:
            node = reader.compose(text, len(path)) or yaml.ScalarNode("tag:yaml.org,2002:null", "")
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
            entry = {key.name: getattr(values, key.name)}
            text = yaml.dump(entry, Dumper=Dumper, default_flow_style=None, sort_keys=False)
            lines.append(f"  # {key.metadata['help']}")
            lines += ["  " + line for line in text.rstrip("\n").split("\n")]
        lines.append("")
    return "\n".join(lines)
