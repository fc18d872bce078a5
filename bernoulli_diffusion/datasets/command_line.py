"""The command: a subcommand for each data set, with the function's arguments as options; its files."""

import argparse
import contextlib
import inspect
import math
import os
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args, get_origin

import numpy as np
import yaml

from ..system.command_line import ArgumentParser, run, tell
from ..system.errors import RunError, UserError, cannot_open, printable
from ..system.files import open_atomically
from . import forms, pictures, points, strings
from .forms import GreyImages, Images, Numbers, Pictures, Split


def data_sets() -> list[Callable[..., Split]]:
    """The functions of three modules whose return annotation is one of forms.py's, in their order."""
    return [
        function
        for module in (strings, points, pictures)
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and function.__module__ != forms.__name__
        and inspect.signature(function).return_annotation
        in (Split, Images, Numbers, GreyImages, Pictures)
    ]


def build_parser() -> ArgumentParser:
    """One subcommand per data set; its options are the arguments of the function."""
    parser = ArgumentParser(
        description="Write a data set to RUN_DIR/train.txt and RUN_DIR/val.txt.", allow_abbrev=False
    )
    parser.epilog = f"The options of a data set: {parser.prog} NAME --help"
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for function in data_sets():
        description = inspect.getdoc(function)
        command = commands.add_parser(
            function.__name__,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(function=function)
        parameters = inspect.signature(function).parameters
        for name in [name for name, p in parameters.items() if p.default is p.empty]:
            choices, text = get_args(parameters[name].annotation)
            names = get_args(choices)
            text = f"{text}: {', '.join(names)}"
            command.add_argument(name, metavar=name.upper(), choices=names, help=text)
        command.add_argument(
            "run_dir", metavar="RUN_DIR", type=Path, help="folder to write to, made if missing"
        )
        for name, parameter in parameters.items():
            if parameter.default is not parameter.empty:
                _add_option(command, name, parameter)
        command.add_argument(
            "--force", action="store_true", help="replace train.txt and val.txt if they are there"
        )
    return parser


def _add_option(command: ArgumentParser, name: str, parameter: inspect.Parameter) -> None:
    annotated, text = get_args(parameter.annotation)
    kind = (get_args(annotated) or (annotated,))[0]  # int | None and Sequence[int] are read as int
    option = "--" + name.rstrip("_").replace("_", "-")  # from_, since from is a word of Python
    if kind is bool:
        command.add_argument(option, dest=name, action="store_true", help=text)
        return
    several = {"nargs": "+", "action": "extend"} if get_origin(annotated) is Sequence else {}
    if parameter.default not in (None, ()):
        text += f" (default: {parameter.default})"
    command.add_argument(
        option,
        dest=name,
        type=kind,
        default=argparse.SUPPRESS,  # an option not given is not passed on: the function knows
        metavar="FOLDER" if kind is Path else kind.__name__.upper(),
        help=text.replace("%", "%%"),
        **several,
    )


def main() -> None:
    arguments = build_parser().parse_args()
    folder, function, force = arguments.run_dir, arguments.function, arguments.force
    refuse_to_overwrite(folder, force)  # before the work, which may take minutes
    names = inspect.signature(function).parameters
    options = {name: value for name, value in vars(arguments).items() if name in names}
    made = function(**options)
    returned = inspect.signature(function).return_annotation
    are_numbers = made.are_numbers if returned is Pictures else returned in (Numbers, GreyImages)
    test = made.test if returned is Pictures else made[0][:0]
    train, val = made[:2]
    shape = made.shape if returned is Pictures else None
    if returned in (Images, GreyImages):
        shape = [math.isqrt(train.shape[1])] * 2
    settings = {}  # that the data need
    if are_numbers:
        settings["model.process"] = "gaussian"
    if shape:
        settings["data.shape"] = shape
    if are_numbers and shape:  # whole numbers have no density
        settings["data.dequantize"] = 1
    write = to_text
    if are_numbers:
        write = whole_numbers_to_text if train.dtype == np.uint8 else numbers_to_text
    is_ready = _says(folder / "config.yaml", settings)
    write_split(folder, write(train), write(val), force, write(test), config_text(settings))

    length = train.shape[1]
    counts = [f"{len(train):,} in train.txt"]
    counts.append(f"{len(val):,} in val.txt" if len(val) else "none held out, so no val.txt")
    counts += [f"{len(test):,} in test.txt"] if len(test) else []
    what = f"samples of {length:,} numbers" if are_numbers else f"strings of {length:,} bits"
    notes = [f"{what}: {', '.join(counts)}"]
    if settings:
        said = ", ".join(f"{name}: {value}" for name, value in settings.items())
        notes.append(f"config.yaml {'says' if is_ready else 'should say'} {said}")
    if is_ready:
        notes.append(f"next: python train.py {shlex.quote(str(folder))}")
    for note in notes:
        tell(printable(note))
    print(printable(folder))


# ------------------------------------------------------------------------------- files


def to_text(strings: np.ndarray) -> bytes:
    """(N, L) of 0 and 1 -> N lines. As in bits/data.py, which needs seconds to import torch."""
    num_strings, length = strings.shape
    text = np.full((num_strings, length + 1), ord("\n"), dtype=np.uint8)
    text[:, :-1] = strings + ord("0")
    return text.tobytes()


def numbers_to_text(samples: np.ndarray) -> bytes:
    """(N, D) -> N lines of numbers with five digits, between spaces."""
    rows = (" ".join([f"{v:.5g}" for v in row]) for row in samples.tolist())
    return "".join(f"{row}\n" for row in rows).encode()


def whole_numbers_to_text(samples: np.ndarray) -> bytes:
    """(N, D) uint8 -> N lines of numbers between spaces, many times as fast as the above."""
    words = [str(value) for value in range(256)]
    rows = (" ".join(map(words.__getitem__, row.tobytes())) for row in samples)
    return "".join(f"{row}\n" for row in rows).encode()


def write_split(
    folder: Path, train: bytes, val: bytes, force: bool = False, test: bytes = b"", config: str = ""
) -> None:
    """Write folder/train.txt and folder/val.txt; with no val there will be no val.txt.

    test: also write test.txt; config: and config.yaml, if there is none. All appear complete, train.txt
    last, or none does. UserError if train.txt or val.txt is there already, unless force.
    """
    refuse_to_overwrite(folder, force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_open(folder, error, "RUN_DIR is a folder to write to") from error
    files = {"train.txt": train, "val.txt": val, "test.txt": test, "config.yaml": config.encode()}
    if (folder / "config.yaml").exists():
        del files["config.yaml"]
    try:
        with contextlib.ExitStack() as stack:
            for name, data in files.items():
                if data:
                    stream = stack.enter_context(open_atomically(folder / name))
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())  # a full disk shows before the first takes its name
            if not val:  # one that is there belongs to other training data
                (folder / "val.txt").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot write: {error.strerror or error}") from error


def refuse_to_overwrite(folder: Path, force: bool) -> None:
    """Raises UserError if train.txt or val.txt is there already, unless force."""
    for path in (folder / "train.txt", folder / "val.txt"):
        if not force and os.path.lexists(path):
            raise UserError(f"{path}: already there; --force replaces train.txt and val.txt")


def _says(path: Path, settings: dict) -> bool:
    """Whether a config.yaml has these settings, {"section.key": value}, or will be made with them."""
    if not path.exists():
        return True
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        for name, value in settings.items():
            section, key = name.split(".")
            if found[section][key] != value:
                return False
        return True
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return False  # train.py says what is wrong with it


def config_text(settings: dict) -> str:
    """A config.yaml of these settings, {"section.key": value}, or nothing."""
    lines = []
    for section in ("model", "data"):
        keys = [f"  {k.split('.')[1]}: {v}" for k, v in settings.items() if k.startswith(section)]
        lines += [f"{section}:", *keys] if keys else []
    return "".join(f"{line}\n" for line in lines)


command = partial(run, main)  # bernoulli-datasets, python -m ...; returns the exit code
