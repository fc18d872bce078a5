"""The machine, tables in Markdown and the plot of growth."""

import inspect
import os
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from .parts import GROWTH, PARTS


def describe_machine(device: torch.device) -> dict:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "processor": processor_name(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
        "memory_GB": None,
        "device": device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "bernoulli_diffusion": __version__,
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES")
        machine["memory_GB"] = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_GB"] = round(properties.total_memory / 1e9, 1)
    return machine


def processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_list(machine: dict) -> str:
    """A Markdown list of what describe_machine found out."""
    known = {key.replace("_", " "): value for key, value in machine.items() if value is not None}
    return "".join(f"- {name}: {value}\n" for name, value in known.items())


def title(part: Callable) -> str:
    """The heading of a part: its docstring's first line."""
    return inspect.getdoc(part).partition("\n")[0]


def as_markdown(part: Callable, rows: list[dict]) -> str:
    """A section: the part's docstring and a table of its rows."""
    text = inspect.getdoc(part).partition("\n")[2].strip()
    return f"### {title(part)}\n\n{text}\n\n{table(rows)}\n"


def table(rows: list[dict]) -> str:
    """rows as a Markdown table; a column for each name that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in names]
    lines = [[name.replace("_", " ") for name in names], ["--:" if n else "---" for n in numeric]]
    lines += [[cell(row.get(name)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def growth_figure(parts: dict[str, list[dict]]):
    """How milliseconds grow with what: a log-log panel for each growth part among the parts."""
    from matplotlib.figure import Figure  # here, because importing matplotlib takes half a second
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    growth = [part for part in PARTS if part.__name__ in parts and part in GROWTH]
    curves = [key for part in growth for key in parts[part.__name__][0] if key.endswith("_ms")]
    colors = {key: f"C{number}" for number, key in enumerate(dict.fromkeys(curves))}
    columns = min(2, len(growth))
    shape = -(-len(growth) // columns), columns
    figure = Figure(figsize=(5 * shape[1], 3.8 * shape[0]), dpi=120, layout="constrained")
    panels = figure.subplots(*shape, squeeze=False, sharey=True).flat
    for panel, part in zip(panels, growth, strict=False):
        rows = parts[part.__name__]
        name = next(iter(rows[0]))  # of what grows
        values = [row[name] for row in rows]
        for key in filter(colors.get, rows[0]):
            label = key.removesuffix("_ms").replace("_", " ")
            times = [row[key] for row in rows]
            panel.loglog(values, times, color=colors[key], marker="o", markersize=4, label=label)
        panel.set_title(title(part), fontsize=10)
        panel.set_xlabel(name)
        panel.set_ylabel("milliseconds")
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        panel.tick_params(labelleft=True)
        panel.grid(alpha=0.3, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8.5)
    for panel in panels:  # those that are left
        panel.remove()
    return figure
