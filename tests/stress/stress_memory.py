"""Training on more strings than memory holds.

Takes about a minute and 4 GB of disk: python -m pytest -n 0 tests/stress/stress_memory.py
"""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from processes import Command, only_results_dir, outcome

from bernoulli_diffusion.bits import data
from bernoulli_diffusion.bits.data import to_text

LENGTH, LINES = 64, 50_000_000  # 3.25 GB of text, 400 MB packed
MEMORY = 600_000_000  # bytes for the whole process; nearly 400 MB are torch's own
CONFIG = """\
model: {T: 100, reverse_model: {width: 16, num_blocks: 1}}
training: {epochs: 1, max_minutes: 0.3, num_val_samples: 1000}
data: {batch_size: 1024}
"""


def limit_memory(in_memory_bytes: int) -> None:
    """Prepares a command: MEMORY for its own data. Mapped files do not count, as they can make room."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    data.IN_MEMORY_BYTES = in_memory_bytes


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.yaml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    with open(folder / "train.txt", "wb") as train:
        for first in range(0, LINES, 250_000):
            packed = rng.integers(0, 256, (250_000, LENGTH // 8), dtype=np.uint8)
            text = to_text(np.unpackbits(packed, axis=1))
            train.write(text)
            if not first:
                (folder / "val.txt").write_bytes(text[: 1000 * (LENGTH + 1)])
    yield folder
    (folder / "train.txt").unlink()


def test_it_trains_though_the_strings_do_not_fit_into_memory(run_dir, tmp_path):
    given = [data.IN_MEMORY_BYTES]
    command = Command(
        tmp_path, "train.py", run_dir, "--device", "cpu", prepare=limit_memory, given=given
    )
    assert command.wait(600) == 0, command.stderr
    assert "1,000 of its 1,000 lines also stand in train.txt" in command.stderr
    results = outcome(only_results_dir(run_dir))["results.json"]
    print(results["status"], results["validated_epochs"])


def test_in_memory_they_do_not(run_dir, tmp_path):
    """The limit is one."""
    command = Command(
        tmp_path, "train.py", run_dir, "--device", "cpu", prepare=limit_memory, given=[1 << 40]
    )
    assert command.wait(600) == 1
    assert "out of memory" in command.stderr
