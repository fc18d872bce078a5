"""config.yaml: what is read, what is refused and how that is told, --set, and back to YAML."""

# ruff: noqa: E501  the tables of messages have a line for each

import contextlib
import copy
import dataclasses
import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bernoulli_diffusion import config as config_module
from bernoulli_diffusion.config import Config, apply_overrides, load_config, parse_config, to_yaml
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.system.strict_yaml import Reader


def mistakes(text: str) -> list[str]:
    """The errors of a YAML text, without "c.yaml:" in front."""
    with pytest.raises(UserError) as caught:
        parse_config(text, "c.yaml")
    lines = str(caught.value).split("\n")
    assert all(line.startswith("c.yaml:") and line.isprintable() for line in lines)
    return [line.removeprefix("c.yaml:") for line in lines]


def mistake(text: str) -> str:
    lines = mistakes(text)
    assert len(lines) == 1, lines
    return lines[0]


def option(text: str):
    """An option of the reverse model as it is read."""
    return parse_config(f"model: {{reverse_model: {{a: {text}}}}}", "c.yaml").model.reverse_model[
        "a"
    ]


# ----------------------------------------------------------------------------- what is read


ANCESTOR = """\
# BernoulliDiffusion
model:
  T: 2000  # diffusion steps
  num_sample_steps: 3
training:
  epochs: 500
  lr: 1e-3
  num_examples: 5
  num_val_samples: 300
  val_batch_size: 100

  save_every_n_epochs: 50
  clip_thresh: 1
data:
  batch_size: 64
"""


def test_the_ancestors_file():
    config = parse_config(ANCESTOR, "c.yaml")
    expected = Config()
    expected.model.T, expected.model.num_sample_steps = 2000, 3
    expected.training.epochs, expected.training.lr = 500, 0.001
    expected.training.num_examples, expected.training.num_val_samples = 5, 300
    expected.training.val_batch_size, expected.training.save_every_n_epochs = 100, 50
    expected.training.clip_thresh = 1.0
    expected.data.batch_size = 64
    assert config == expected
    assert type(config.training.clip_thresh) is float


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "# nothing\n", "---\n", "---\n...\n", "~", "null", "{}", "model:\n", "\ufeff",
        "model:\ntraining: null\ndata: {}\n", "model:\n  reverse_model:\n",
    ],
)  # fmt: skip
def test_empty_documents_and_sections_mean_the_defaults(text):
    assert parse_config(text, "c.yaml") == Config()


def test_each_key_alone():
    """Every key may be given without the others; the value reaches its place and no other."""
    for section in dataclasses.fields(Config):
        for key in dataclasses.fields(section.default_factory):
            special = {"reverse_model": {"width": 7}, "shape": [3, 4]}
            if key.metadata["choices"]:
                special[key.name] = key.metadata["choices"][-1]
            value = special.get(
                key.name, 0.5 if "float" in str(key.type) or key.type is float else 7
            )
            expected = Config()
            setattr(getattr(expected, section.name), key.name, value)
            assert expected != Config()
            text = f"{section.name}:\n  {key.name}: {value}\n"
            assert parse_config(text, "c.yaml") == expected


def test_defaults_are_in_range_and_not_shared():
    assert parse_config(to_yaml(Config()), "c.yaml") == Config()
    Config().model.reverse_model["width"] = 3
    assert Config().model.reverse_model == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E-3", 0.001), ("1e0", 1.0), ("1.", 1.0), (".5", 0.5), ("+1", 1.0),
        ("+.5e+1", 5.0), ("1", 1.0), ("0.0010", 0.001), ("2.5e-1", 0.25), ("1.e-1", 0.1),
    ],
)  # fmt: skip
def test_numbers(text, value):
    read = parse_config(f"training:\n  lr: {text}\n", "c.yaml").training.lr
    assert read == value
    assert type(read) is float


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("+7", 7), ("1000000", 10**6)])
def test_whole_numbers(text, value):
    read = parse_config(f"model: {{T: {text}}}", "c.yaml").model.T
    assert read == value
    assert type(read) is int


@pytest.mark.parametrize("text", ["null", "Null", "NULL", "~", ""])
def test_null(text):
    config = parse_config(f"training:\n  keep_checkpoints: {text}\n  lr: 0.5\n", "c.yaml")
    assert config.training.keep_checkpoints is None
    assert config.training.lr == 0.5
    for key, expected in (("T", "a whole number"), ("num_sample_steps", "a whole number")):
        found = f"'{text}'" if text else "nothing"
        error = mistake(f"model:\n  {key}: {text}\n")
        assert error == f"2: model.{key}: expected {expected}, found {found}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-1", -1), ("+1", 1), ("0", 0), ("1e-3", 0.001), ("1.", 1.0), (".5", 0.5),
        ("-2.5E+3", -2500.0), ("true", True), ("False", False), ("TRUE", True), ("null", None),
        ("~", None), ("relu", "relu"), ("nan", "nan"), ("inf", "inf"), ("'1e-3'", "1e-3"),
        ('"no"', "no"), ("'017'", "017"), ("''", ""), ('"\\x1b"', "\x1b"), ("tRuE", "tRuE"),
        ("a b", "a b"), ("9" * 400, int("9" * 400)), ("-12345678901234567890123", -(12345678901234567890123)),
        ("[1, x, [true, 2.5]]", [1, "x", [True, 2.5]]), ("{b: {c: 1e3}}", {"b": {"c": 1000.0}}),
        ("[]", []), ("{}", {}), ("{1: 2, no: 3}", {"1": 2, "no": 3}),
    ],
)  # fmt: skip
def test_options_of_the_reverse_model(text, value):
    read = option(text)
    assert read == value
    assert type(read) is type(value)


def test_block_texts():
    text = "model:\n  reverse_model:\n    a: |\n      1\n      2\n    b: >\n      x\n      y\n"
    options = parse_config(text, "c.yaml").model.reverse_model
    assert options == {"a": "1\n2\n", "b": "x y\n"}


# ----------------------------------------------------------------------------- what is refused


DOUBTFUL = ["017", "1_0", "1:30", "0x1F", "0b11", "08", "-017", "no", "Yes", "on", "OFF", "2026-01-31",
            ".nan", ".inf", "-.INF", "1e999", "-1e999", "1_0.5", "1:30.5", "00", "=", "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("text", DOUBTFUL)
def test_what_yaml_readers_disagree_on_is_refused(text):
    shown = text if len(text) <= 40 else text[:37] + "..."
    if text not in ("1e999", "-1e999", "9" * 5000):
        error = mistake(f"training:\n  lr: {text}\n")
        assert error == f"2: training.lr: expected a number, found '{shown}'"
    error = mistake(f"training:\n  epochs: {text}\n")
    assert error == f"2: training.epochs: expected a whole number or null, found '{shown}'"
    error = mistake(f"model:\n  reverse_model:\n    x: 1\n    a: {text}\n")
    assert error.startswith("4: model.reverse_model.a: expected a finite number, true, false, null")
    assert error.endswith(f"found '{shown}'")
    assert mistake(f"model: {{reverse_model: {{a: [1, {{b: {text}}}]}}}}").startswith(
        "1: model.reverse_model.a[1].b: expected a finite number"
    )


@pytest.mark.parametrize("text", ["yes", "No", "on", "1", "tRUE", "'true'", "null", ""])
def test_true_and_false_are_written_in_one_way(text):
    """No key is a bool today; the next one must not take `no` for false, or `off` for "off"."""
    reader = Reader("c.yaml")
    node = reader.compose(f"a: {text}").value[0][1]
    assert reader.value(node, bool, "a") is None
    assert "expected true or false, found" in reader.errors[0]
    assert reader.value(reader.compose("False"), bool, "a") is False
    assert len(reader.errors) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T: 2.0", "expected a whole number, found '2.0'"),
        ("T: 1e3", "expected a whole number, found '1e3'"),
        ("T: nan", "expected a whole number, found 'nan'"),
        ("T: many", "expected a whole number, found 'many'"),
        ("T: '5'", "expected a whole number, found the text '5' in quotes"),
        ('T: "\\e[31m"', "expected a whole number, found the text '\\x1b[31m' in quotes"),
        ("T: |\n    5", "expected a whole number, found the text '5\\n' in quotes"),
        ("T: [5]", "expected a whole number, found a list"),
        ("T: {a: 5}", "expected a whole number, found a mapping"),
        ("T: -3", "expected at least 1, found -3"),
        ("T: 0", "expected at least 1, found 0"),
        ("T: 1000001", "expected at most 1000000, found 1000001"),
        ("T: " + "1" * 400, f"expected at most 1000000, found {'1' * 37}..."),
        ("T: -" + "1" * 400, f"expected at least 1, found -{'1' * 36}..."),
        ("T: " + "x" * 90, f"expected a whole number, found '{'x' * 37}...'"),
    ],
)
def test_wrong_values(text, expected):
    key = text.split(":")[0]
    assert mistake(f"# a comment\nmodel:\n  {text}\n") == f"3: model.{key}: {expected}"


def test_a_value_below_its_key_has_its_own_line():
    assert mistake("model:\n  T:\n\n    0\n") == "4: model.T: expected at least 1, found 0"
    assert mistake("model:\n  T:\n\n    x\n").startswith("4: model.T: expected a whole number")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: 0", "expected more than 0, found 0.0"),
        ("lr: -1e-3", "expected more than 0, found -0.001"),
        ("lr: 11", "expected at most 10, found 11.0"),
        ("lr: 1e999", "expected a finite number, found inf"),
        ("clip_thresh: -1e999", "expected a finite number, found -inf"),
        ("clip_thresh: " + "1" * 400, "expected a finite number, found inf"),
        ("lr: fast", "expected a number, found 'fast'"),
        ("max_minutes: soon", "expected a number or null, found 'soon'"),
        ("epochs: " + "1" * 400, f"expected at most 9223372036854775807, found {'1' * 37}..."),
        ("warmup_steps: 9223372036854775808",
         "expected at most 9223372036854775807, found 9223372036854775808"),
        ("ema_decay: 1", "expected at most 0.999999, found 1.0"),
        ("num_bound_draws: 1", "expected at least 2, found 1"),
        ("lr_schedule: cosin", "expected cosine or constant or adaptive, found 'cosin'; did you mean cosine?"),
        ("lr_schedule: 5",
         "expected cosine or constant or adaptive, found '5'; known: cosine, constant, adaptive"),
        ("lr_schedule: [cosine]", "expected a word or null, found a list"),
    ],
)  # fmt: skip
def test_wrong_training_values(text, expected):
    key = text.split(":")[0]
    assert mistake(f"training:\n  seed: 1\n  {text}\n") == f"3: training.{key}: {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", "3: data.shape: expected a list such as [8, 8] or null, found '8'"),
        ("8x8", "3: data.shape: expected a list such as [8, 8] or null, found '8x8'"),
        ("{a: 8}", "3: data.shape: expected a list such as [8, 8] or null, found a mapping"),
        ("[8]", "3: data.shape: expected [rows, columns] or [rows, columns, 3], found 1 numbers"),
        ("[]", "3: data.shape: expected [rows, columns] or [rows, columns, 3], found 0 numbers"),
        ("[8, 8, 8]", "3: data.shape: expected 3 colours as the third number, found 8"),
        ("[8, 0]", "3: data.shape: expected at least 1, found 0"),
        ("[8, 1.5]", "3: data.shape, number 2: expected a whole number, found '1.5'"),
        ("\n  - 8\n  - no", "5: data.shape, number 2: expected a whole number, found 'no'"),
        ("[[8, 8]]", "3: data.shape, number 1: expected a whole number, found a list"),
        ("[8, null]", "3: data.shape, number 2: expected a whole number, found 'null'"),
        ("[8, '8']", "3: data.shape, number 2: expected a whole number, found the text '8' in quotes"),
    ],
)  # fmt: skip
def test_wrong_shapes(text, expected):
    assert mistake(f"data:\n  batch_size: 3\n  shape: {text}\n") == expected


@pytest.mark.parametrize("text", ["[8, 3]", "\n  - 8\n  - 3", "\n    [\n    8, 3\n    ]"])
def test_shapes(text):
    assert parse_config(f"data:\n  shape: {text}\n", "c.yaml").data.shape == [8, 3]


def test_all_mistakes_come_at_once_each_with_its_line():
    text = """\
modle:
  T: 5
training:

  epochs: none
  # lr:
  lrr:
    3
  lr: 0.1
  lr: 0.2
  batch_size: 12
data:
  shape: [4, four]
  batch_size: 1.5
epochs: 5
data: {}
model:
  reverse_model:
    width: 017
    width: 18
"""
    assert mistakes(text) == [
        "16: data: this key is given twice (first in line 12)",
        "1: modle: unknown section; did you mean model?",
        "10: lr: this key is given twice (first in line 9)",
        "5: training.epochs: expected a whole number or null, found 'none'",
        "7: training.lrr: unknown key; did you mean lr?",
        "11: training.batch_size: unknown key; it belongs in the section data",
        "13: data.shape, number 2: expected a whole number, found 'four'",
        "14: data.batch_size: expected a whole number, found '1.5'",
        "15: epochs: unknown section; it belongs in the section training",
        "20: width: this key is given twice (first in line 19)",
        "19: model.reverse_model.width: expected a finite number, true, false, null or a word"
        " (in quotes if in doubt), found '017'",
    ]


def test_unknown_names():
    assert mistake("optimizer: {}") == "1: optimizer: unknown section; known: model, training, data"
    assert (
        mistake("data: {zzz: 1}")
        == "1: data.zzz: unknown key; known: batch_size, hold_out, dequantize, minimum, maximum, shape"
    )
    assert (
        mistake("data: {'': 1}")
        == "1: data.: unknown key; known: batch_size, hold_out, dequantize, minimum, maximum, shape"
    )
    assert mistake(f"data: {{{'k' * 100}: 1}}").startswith(f"1: data.{'k' * 37}...: unknown key")
    assert mistake("data: {BATCH_SIZE: 1}").startswith("1: data.BATCH_SIZE: unknown key; ")
    assert mistake('data: {"\\e]0;x\\a": 1}').startswith("1: data.\\x1b]0;x\\x07: unknown key")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", "1: the file: expected a mapping with sections model, training, data, found 'hello'"),
        ("- 1", "1: the file: expected a mapping with sections model, training, data, found a list"),
        ("model: 5", "1: model: expected keys with values, found '5'"),
        ("model:\n  - T: 5", "2: model: expected keys with values, found a list"),
        ("model: {reverse_model: 5}", "1: model.reverse_model: expected options with values, found '5'"),
        ("model: {[1]: 2}", "1: model: expected a name as key, found a list"),
        ("model: {{a: b}: 2}", "1: model: expected a name as key, found a mapping"),
        ("model: {<<: {T: 5}}", "1: model: merge keys (<<) are not supported"),
        ("model: {reverse_model: {a: {<<: {}}}}", "1: model.reverse_model.a: merge keys (<<) are not supported"),
        ("model: &m {T: 5}\ndata: *m", "2:7: cannot be read: aliases (*name) are not supported; write the value again"),
        ("model:\n  T: !!python/object/apply:os.system [ls]", "2:6: cannot be read: tags (tag:yaml.org,2002:python/object/apply...) are not supported"),
        ("model: {T: !!int 5}", "1:12: cannot be read: tags (tag:yaml.org,2002:int) are not supported"),
        ("model: {T: ! 5}", "1:12: cannot be read: tags (!) are not supported"),
        ("a: 1\n---\nb: 2", "2:1: cannot be read: expected a single document in the stream, but found another document"),
        ("model:\n\tT: 5", "2:1: cannot be read: while scanning for the next token, found character '\\t' that cannot start any token; use spaces instead of tabs"),
        ("model:\n  T: \x005", "2:6: cannot be read: found the character '\\x00'; is this a text file?"),
        ("model: \x1b", "1:8: cannot be read: found the character '\\x1b'; is this a text file?"),
        ("model: {T: 5", "1:13: cannot be read: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'"),
        ("model:\n T: 5\n  x: 6", "3:4: cannot be read: mapping values are not allowed here"),
        ('model: {reverse_model: {a: "\\UFFFFFFFF"}}', "1:31: cannot be read: found a number out of range"),
        ('model: {reverse_model: {a: "\\U00110000"}}', "1:31: cannot be read: found a number out of range"),
        ("%YAML 1." + "1" * 5000 + "\n---\n", "1:9: cannot be read: found a number out of range"),
        ("[" * 1000, "1:22: cannot be read: nested more than 20 deep"),
        ("- " * 1000, "1:43: cannot be read: nested more than 20 deep"),
    ],
)  # fmt: skip
def test_what_is_not_a_config(text, expected):
    assert mistake(text) == expected


# ----------------------------------------------------------------------------- files


def test_a_config_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    path = tmp_path / "config.yaml"
    path.symlink_to(path)
    with pytest.raises(UserError):
        load_config(path)


def test_load_config(tmp_path):
    path = tmp_path / "config.yaml"
    assert load_config(path) == Config()
    path.write_bytes(b"")
    assert load_config(path) == Config()
    path.write_bytes(b"\xef\xbb\xbfmodel:\r\n  T: 5\r\n  reverse_model: {a: \xc3\xa9}\r\n")
    assert load_config(path).model.T == 5
    assert load_config(path).model.reverse_model == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"model:\r\n  T: x\r\n", ":2: model.T: expected a whole number, found 'x'"),
        (b"model:\n  T: 5 # \xe9\n", ":2: not UTF-8 text; save the file as UTF-8"),
        ("model:\n".encode("utf-16"), ":1: not UTF-8 text; save the file as UTF-8"),
        (b"#" * 100_001, ": larger than 100,000 bytes; is this a config?"),
        (b"model:\n  T: 5\n" + bytes(9), ":3:1: cannot be read: found the character '\\x00'; is this a text file?"),
    ],
)  # fmt: skip
def test_load_config_errors(tmp_path, content, expected):
    path = tmp_path / "a\x1bb.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value) == f"{tmp_path}/a\\x1bb.yaml{expected}"


def test_load_config_from_a_folder_or_an_endless_file(tmp_path):
    with pytest.raises(UserError, match="this is a folder, expected a file"):
        load_config(tmp_path)
    with pytest.raises(UserError, match="larger than 100,000 bytes"):
        load_config("/dev/zero")


@pytest.mark.parametrize(
    "text",
    [
        "training:\n" + "".join(f"  k{i:06}: {i}\n" for i in range(1000)),
        "{" + "a: 1," * 5000,
        "model: {reverse_model: {a: [" + "1," * 10_000 + "]}}",
        'a: "' + "x\n " * 30_000,
        "a: " + "x\n  " * 20_000,
        ":" * 100_000,
        "? " * 50_000,
    ],
)
def test_nothing_grows_with_the_square_of_the_file(text):
    started = time.process_time()
    with contextlib.suppress(UserError):
        parse_config(text, "c.yaml")
    assert time.process_time() - started < 5


# ----------------------------------------------------------------------------- --set


def overridden(*overrides: str, text: str = "") -> Config:
    config = parse_config(text, "c.yaml")
    apply_overrides(config, list(overrides))
    return config


def override_mistakes(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        overridden(*overrides)
    lines = str(caught.value).split("\n")
    assert all(line.isprintable() for line in lines)
    return lines


def test_overrides():
    config = overridden(
        "training.lr=1e-2", "training.lr=.5", " model.T = 7", "data.shape=[2, 3]",
        "training.keep_checkpoints=null", "training.max_minutes=", text=ANCESTOR,
    )  # fmt: skip
    expected = parse_config(ANCESTOR, "c.yaml")
    expected.training.lr, expected.model.T, expected.data.shape = 0.5, 7, [2, 3]
    expected.training.keep_checkpoints = None
    assert config == expected


def test_overrides_of_options_are_added_to_those_of_the_file():
    text = "model: {reverse_model: {width: 3, nested: {a: 1, b: 2}}}"
    config = overridden(
        "model.reverse_model.width=64",
        "model.reverse_model.name=a=b",
        "model.reverse_model.nested.b=[3]",
        "model.reverse_model={depth: 2, nested: {c: '4'}}",
        text=text,
    )
    assert config.model.reverse_model == {
        "width": 64, "name": "a=b", "nested": {"a": 1, "b": [3], "c": "4"}, "depth": 2,
    }  # fmt: skip
    assert overridden("model.reverse_model=", text=text).model.reverse_model["width"] == 3
    assert overridden("model.reverse_model.width.x=1", text=text).model.reverse_model["width"] == {
        "x": 1
    }


def test_an_empty_mapping_takes_back_the_options_of_the_file():
    overrides = "model.reverse_model={}", "model.reverse_model.depth=2"
    config = overridden(*overrides, text="model: {reverse_model: {width: 3}}")
    assert config.model.reverse_model == {"depth": 2}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.lr", "expected section.key=value, such as training.lr=0.001"),
        ("training=5", "expected section.key=value, such as training.lr=0.001"),
        ("training.=5", "expected section.key=value, such as training.lr=0.001"),
        ("=5", "expected section.key=value, such as training.lr=0.001"),
        ("", "expected section.key=value, such as training.lr=0.001"),
        ("model.reverse_model" + ".a" * 500 + "=5", "expected section.key=value, such as training.lr=0.001"),
        ("training.lr=", "training.lr: expected a number, found nothing"),
        ("training.lr=fast", "training.lr: expected a number, found 'fast'"),
        ("training.lr=-1", "training.lr: expected more than 0, found -1.0"),
        ("training.lr='1'", "training.lr: expected a number, found the text '1' in quotes"),
        ("training.lrr=1", "training.lrr: unknown key; did you mean lr?"),
        ("trainin.lr=1", "trainin: unknown section; did you mean training?"),
        ("training.T=1", "training.T: unknown key; it belongs in the section model"),
        ("training.lr.x=1", "training.lr: expected a number, found a mapping"),
        ("model.reverse_model=5", "model.reverse_model: expected options with values, found '5'"),
        ("model.reverse_model.a=no", "model.reverse_model.a: expected a finite number, true, false, null or a word (in quotes if in doubt), found 'no'"),
        ("model.reverse_model={a: 1, a: 2}", "a: this key is given twice"),
        ("data.shape=8,8", "data.shape: expected a list such as [8, 8] or null, found '8,8'"),
        ("data.shape=[8", "cannot be read: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("model.T=*x", "cannot be read: aliases (*name) are not supported; write the value again"),
        ("model.T=\x00", "cannot be read: found the character '\\x00'; is this a text file?"),
        ("model.T=\udcff", "cannot be read: found the character '\\udcff'; is this a text file?"),
        ("model.reverse_model.a=" + "[" * 19, "cannot be read: nested more than 20 deep"),
    ],
)  # fmt: skip
def test_wrong_overrides(override, expected):
    source = override.replace("\x00", "\\x00").replace("\udcff", "\\udcff")
    assert override_mistakes(override) == [f"--set {source}: {expected}"]


def test_all_wrong_overrides_come_at_once():
    lines = override_mistakes("model.T=0", "model.T=5", "x", "data.batch_size=\n1\x1b")
    assert lines == [
        "--set model.T=0: model.T: expected at least 1, found 0",
        "--set x: expected section.key=value, such as training.lr=0.001",
        "--set data.batch_size=\\n1\\x1b: cannot be read: found the character '\\x1b';"
        " is this a text file?",
    ]


# ----------------------------------------------------------------------------- and back to YAML


TRICKY = ["1e-3", "no", "null", "", "017", "08", "true", "tRuE", "~", "1.", ".5", "1_0", "1:30", "<<", "=",
          "*a", "&a", "!t", "# x", "a: b", "- x", "[x]", "{x", "'", '"', " x ", "x\n\ny\n", "\n", "\t", "é",
          "\u2028", "\x85", "\ufeff", "\U0001f600", "2026-01-31", "|", ">", "%", "@", "`", "---", "...", "?",
          "nan", ".nan", "inf", "a" * 200, "x: " * 60, "\\", "\x1b"]  # fmt: skip

texts = st.one_of(st.sampled_from(TRICKY), st.text(max_size=8))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-05, 1e16, 1e300, -0.0, 5e-324]),
    texts,
)
options = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def values_of(declared: str, metadata) -> st.SearchStrategy:
    """Any valid value of a key."""
    if metadata["choices"]:
        return st.sampled_from(metadata["choices"])
    least, above, most = metadata["least"], metadata["above"], metadata["most"]
    low, high = (least if above is None else above), most
    if "float" in declared:
        value = st.floats(low, high, exclude_min=above is not None, allow_infinity=False)
        value = value.filter(lambda x: x <= config_module.MOST)
    else:
        value = st.integers(low, config_module.MOST if high is None else high)
    if "list" in declared:
        value = st.lists(value, min_size=2, max_size=2)
    return st.none() | value if "None" in declared else value


@st.composite
def configs(draw) -> Config:
    config = Config()
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for key in dataclasses.fields(values):
            if key.name != "reverse_model" and draw(st.booleans()):
                declared = key.type if isinstance(key.type, str) else str(key.type)
                setattr(values, key.name, draw(values_of(declared, key.metadata)))
    config.model.reverse_model = draw(options)
    return config


def with_types(value):
    """value with the type of everything in it, because 1 == 1.0 == True and -0.0 == 0.0."""
    if isinstance(value, dict):
        return [(k, with_types(v)) for k, v in value.items()]
    if isinstance(value, list):
        return [with_types(v) for v in value]
    return type(value), value, math.copysign(1, value) if isinstance(value, float) else None


@settings(max_examples=50, deadline=None)
@given(configs())
@example(Config())
def test_there_and_back(config):
    text = to_yaml(config)
    back = parse_config(text, "c.yaml")
    assert with_types(dataclasses.asdict(back)) == with_types(dataclasses.asdict(config))
    assert to_yaml(back) == text


def test_tricky_options_there_and_back():
    config = Config()
    config.model.reverse_model = {text: [text, {"a": text, text: 1e-05}] for text in TRICKY}
    assert parse_config(to_yaml(config), "c.yaml") == config


def test_what_options_share_is_written_twice():
    """No anchors and aliases, which the loader refuses."""
    shared = [1, 2]
    config = Config()
    config.model.reverse_model = {"a": shared, "b": shared, "c": {"d": shared}}
    assert parse_config(to_yaml(config), "c.yaml") == config


def test_as_deep_as_can_be_read_can_be_written():
    deep = "[" * 18 + "]" * 18
    config = parse_config(f"model: {{reverse_model: {{a: {deep}}}}}", "c.yaml")
    assert parse_config(to_yaml(config), "c.yaml") == config
    mistake(f"model: {{reverse_model: {{a: [{deep}]}}}}")
    by_override = overridden(f"model.reverse_model.a={deep}")
    assert parse_config(to_yaml(by_override), "c.yaml") == by_override == config
    override_mistakes(f"model.reverse_model.a=[{deep}]")
    override_mistakes("model.reverse_model" + ".a" * 18 + "={b: [1]}")
    deepest = overridden("model.reverse_model" + ".a" * 18 + "=1")
    assert parse_config(to_yaml(deepest), "c.yaml") == deepest


def test_the_file_explains_itself():
    """Every key stands under a comment with its meaning, and simple words stand without quotes."""
    text = to_yaml(Config())
    lines = text.split("\n")
    for section in dataclasses.fields(Config):
        assert f"{section.name}:" in lines
        for key in dataclasses.fields(section.default_factory):
            above = lines.index(f"  # {key.metadata['help']}")
            assert lines[above + 1].startswith(f"  {key.name}:")
    assert "  loss: bound" in lines
    assert "  lr: 0.001" in lines
    assert "  epochs: null" in lines
    assert text.isascii()


def test_reading_leaves_the_defaults_as_they_were():
    before = copy.deepcopy(Config())
    config = parse_config("model: {reverse_model: {a: {b: 1}}}\ndata: {shape: [1, 2]}", "c.yaml")
    config.model.reverse_model["a"]["b"] = 2
    config.data.shape[0] = 3
    assert Config() == before
