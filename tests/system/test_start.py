"""What the commands set before torch is there, and what they do without."""

import os
import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource
import numpy as np
from bernoulli_diffusion.system.command_line import tune_process

def step():
    [np.ones(1_000_000, np.float32) for _ in range(10)]  # 4 MB each

tune_process()
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

COMPILER = """
import sys
import torch
from bernoulli_diffusion import gaussian_reverse_model, reverse_model
from bernoulli_diffusion.benchmark.measure import SIZES, make_trainer, random_strings, train

train(make_trainer(random_strings(100, 20), SIZES["tiny"], torch.device("cpu")))
with torch.device("meta"):  # as a checkpoint's weights are compared with the network
    for network in (reverse_model, gaussian_reverse_model):
        network.ReverseModel(20, 100)
print("torch._dynamo" in sys.modules)
"""


def page_faults(**environment: str) -> int:
    """Of a step that takes and frees 40 MB, when others have done so before it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", PAGE_FAULTS]
    run = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets the GNU C library's malloc")
def test_a_steps_memory_serves_the_next_one():
    assert page_faults() < 100
    assert page_faults(MALLOC_TRIM_THRESHOLD_="0") > 5000  # whoever sets it has it his way


def test_neither_training_nor_a_checkpoint_imports_torchs_compiler():
    """It takes a second and more, before the first step."""
    command = [sys.executable, "-c", COMPILER]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
