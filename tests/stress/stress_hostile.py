"""Thousands of broken, strange and malicious inputs; tests/training/test_hostile_files.py has them.

Takes about ten minutes: python -m pytest tests/stress/stress_*.py
"""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from test_hostile_files import FUZZ, check_arguments, check_checkpoint, check_text, stopped

__all__ = ["stopped"]  # a fixture
EXAMPLES = 2000


def try_many(check) -> None:
    settings(FUZZ, max_examples=EXAMPLES)(given(st.data())(check))()


@pytest.mark.parametrize("name", ["train.txt", "val.txt", "config.yaml"])
def test_texts(name):
    try_many(lambda data: check_text(name, data))


@pytest.mark.parametrize("script", ["train.py", "generate.py"])
def test_arguments(script):
    try_many(lambda data: check_arguments(script, data))


def test_checkpoints(stopped):
    try_many(lambda data: check_checkpoint(stopped, data))
