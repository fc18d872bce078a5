"""Results folders made up from given curves, as train.py would have written them."""

import itertools
import json
from pathlib import Path

from bernoulli_diffusion.config import Config, apply_overrides, to_yaml
from bernoulli_diffusion.results.record import Results, from_text

SOURCE = '''"""A file."""


class ReverseModel:
    """A network of {width} units."""
'''


def made_up(
    val: list[float] | None,
    train: list[float] | None = None,
    error: float = 0.01,
    shares: tuple[float, float, float] = (0.5, 0.3, 0.2),
    **changes,
) -> dict:
    """results.json of a run of 8-bit strings with these bounds, a validation every 10 epochs from 0."""
    train = [b - 0.1 for b in val] if train is None else train
    count = len(train)
    has_val = val is not None
    epochs = [10 * k for k in range(count)]
    return {
        "status": "finished",
        "length": 8,
        "has_val": has_val,
        "data": {
            "train": {"lines": 80, "sha256": "a" * 64},
            "val": {"lines": 20, "sha256": "b" * 64} if has_val else None,
            "val_lines_in_train": 0,
        },
        "baselines": {
            "uniform": 8.0,
            "independent_train": 7.5,
            "independent_val": 7.6 if has_val else None,
        },
        "losses": [5.0] * epochs[-1] if epochs else [],
        "validated_epochs": epochs,
        "seconds": [1.5 * k for k in range(count)],
        "bound": {
            "train": train,
            "train_standard_error": [error] * count,
            "val": val or [],
            "val_standard_error": [error] * len(val or []),
        },
        "final_bound": None,
        "proportions": {
            name: [share] * count
            for name, share in zip(("train", "val", "other"), shares, strict=True)
        },
        "distinct": [0.5] * count,
        "examples_per_epoch": [["00001111", "01010101"]] * count,
        "data_examples": ["00110011", "11110000", "10101010"],
        "statistics": None,
        "samples_per_second": 12345.0,
        "num_val_samples": 1000,
        "best_epoch": epochs[-1] if epochs else None,
        "num_parameters": 4321,
        "reverse_model_sha256": "0123456789abcdef" * 4,
        "seed": 0,
        "device": "cpu",
        "versions": {"bernoulli_diffusion": "1.0.0"},
    } | changes


def record_of(plain: dict) -> Results:
    """What is read from such a results.json."""
    return from_text(json.dumps(plain))


def made_up_real(val: list[float], **changes) -> dict:
    """results.json of a run on real numbers."""
    results = made_up(val, process="gaussian", energy_distance=[0.02] * len(val))
    for key in ("proportions", "distinct", "data_examples", "statistics"):
        del results[key]
    results["data"] |= {"energy_floor": 0.01, "energy_floor_high": 0.02}
    results["baselines"] = {"gaussian_train": 3.5, "gaussian_val": 3.6, "kernel_density_val": None}
    return results | changes


_numbers = itertools.count(1)


def write_folder(
    run_dir: Path, results: dict | str, *overrides: str, name: str | None = None, width: int = 8
) -> Path:
    """A results folder in run_dir; overrides are --set assignments of its config.yaml."""
    if name is None:
        minute, second = divmod(next(_numbers), 60)
        name = f"2031-01-01_00-{minute:02d}-{second:02d}"
    folder = run_dir / "results" / name
    (folder / "checkpoints").mkdir(parents=True)
    text = results if isinstance(results, str) else json.dumps(results)
    (folder / "results.json").write_text(text)
    config = Config()
    apply_overrides(config, list(overrides))
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "reverse_model.py").write_text(SOURCE.format(width=width))
    return folder
