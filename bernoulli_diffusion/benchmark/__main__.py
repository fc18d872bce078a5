"""The command line."""

from ..system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import sys
import tempfile
import time
from argparse import SUPPRESS
from pathlib import Path

from ..system.command_line import ArgumentParser, output_file, png_file, run, tell
from ..system.device import choose_device
from ..system.errors import UserError
from ..system.files import write_atomically
from ..training.distributed import processes
from .alone import report_alone
from .measure import SIZES
from .parts import GROWTH, PARTS
from .report import as_list, as_markdown, describe_machine, growth_figure, title


def parse_arguments(argv: list[str] | None = None):
    parser = ArgumentParser(
        prog="python -m bernoulli_diffusion.benchmark",
        description="Measure what the program costs beside what it could cost on this machine, and "
        "print Markdown tables. About ten minutes on two cores; nothing else should be running.",
    )
    parser.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        default="full",
        dest="size",
        help="less of everything, one or two minutes",
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write all rows to FILE"
    )
    parser.add_argument(
        "--plot",
        type=png_file,
        metavar="FILE.png",
        help="also draw the growth with L, T, lines, batch",
    )
    names = [part.__name__ for part in PARTS]
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"measure only these of: {', '.join(names)}",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to make temporary files, up to a gigabyte (default: the system's place for them)",
    )
    parser.add_shared("--device")
    parser.add_argument("--size", choices=SIZES, help=SUPPRESS)
    parser.add_argument("--alone", help=SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.folder and not arguments.folder.is_dir():
        raise UserError(f"{arguments.folder}: no such folder")
    if arguments.plot and not any(part.__name__ in arguments.parts for part in GROWTH):
        raise UserError("--plot draws the parts growth_...; ask for one of them with --parts")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    size, device = SIZES[arguments.size], choose_device(arguments.device)
    if arguments.alone:
        with processes() as group:
            report = report_alone(arguments.alone, size, device, arguments.folder, group)
        if group.is_first:
            print(json.dumps(report))
        return
    start = time.monotonic()
    machine = describe_machine(device)
    print(as_list(machine), flush=True)
    measured = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark_") as folder:
        for part in PARTS:
            if part.__name__ not in arguments.parts:
                continue
            tell(f"{title(part)} ...")
            measured[part.__name__] = part(size, device, Path(folder).resolve())
            print(as_markdown(part, measured[part.__name__]), flush=True)
            if arguments.json:
                report = {
                    "machine": machine,
                    "size": arguments.size,
                    "seconds": time.monotonic() - start,
                    "parts": measured,
                }
                write_atomically(arguments.json, json.dumps(report, indent=1).encode())
    if arguments.plot:
        from ..results.plots import write_figure

        write_figure(growth_figure(measured), arguments.plot)
    tell(f"measured in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(run(main))
