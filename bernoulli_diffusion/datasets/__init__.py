"""Data sets: python -m bernoulli_diffusion.datasets NAME RUN_DIR [options]

Writes RUN_DIR/train.txt and RUN_DIR/val.txt, one string of 0 and 1 a line, or one sample of real
numbers a line (for model.process: gaussian).

A data set is a function that returns (train, val), two uint8 arrays of shape (N, L) of which val
may be empty. Write one in strings.py, points.py or pictures.py and it is a command, and
datasets.NAME: its name is NAME, its docstring the help, and its arguments the options, each annotated
as Annotated[type, "help"] and with a default (the type is int, float, Path, any of them `| None`,
Sequence[int], or bool, False by default; a Literal of texts without a default stands before RUN_DIR).
The return annotation is what tells a data set from a helper, and what its rows are: see forms.py.
What config.yaml must say of the data is written there, if there is none.
"""

from ..system import requirements  # noqa: F401  says in one line what is missing

# isort: split
from .command_line import command, config_text, data_sets, main, to_text, write_split

__all__ = ["command", "config_text", "data_sets", "main", "to_text", "write_split"]

globals().update({function.__name__: function for function in data_sets()})
