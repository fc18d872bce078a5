"""What is measured.

A part is a function (size, device, folder) -> rows that measures with the program's own functions. A
row is a dict whose names end in their units; the docstring is the text above the printed table. Write
one, add it to PARTS, and it is printed, written to the JSON file and known to --parts.
"""

import time
from pathlib import Path

import numpy as np
import torch

from ..bits.data import BitStrings, read_bit_strings
from ..bits.membership import Membership
from ..sampling import ProposalTimes
from ..system.errors import RunError
from .alone import (
    FIRST_STEP,
    NOTHING,
    PATTERN_LENGTH,
    SHARED_STEPS,
    alone,
    asked_strings,
    first_answer,
    things_to_do_alone,
)
from .measure import (
    ANCESTRAL,
    THINNED,
    Size,
    add_papers_gradient,
    bare_step,
    compare,
    count_calls,
    elapsed,
    make_trainer,
    milliseconds,
    papers_step,
    random_strings,
    samplers,
    text_file,
    time_in_turn,
    train,
)

PERIOD = 10  # of the strings of PATTERN_LENGTH that the samplers' model learns


def limits(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Limits of the machine

    What no program can beat here. The copy counts bytes read and bytes written; the products are
    float32, of the default network's own shapes at a batch of 1,024 and of a large one; the smallest
    operation adds to a single number, so its time is what it costs to ask for anything at all.
    """
    source, one = torch.ones(size.copied, device=device), torch.zeros(1, device=device)
    large = size.product * (4 if device.type == "cuda" else 1)
    shapes = [(1024, 256, 256), (1024, 784, 256), (large, large, large)]
    products = [
        (torch.mm, torch.randn(n, k, device=device), torch.randn(k, m, device=device))
        for n, k, m in shapes
    ]
    tasks = [(torch.empty_like(source).copy_, source), (one.add_, 1), *products]
    copy_, smallest, *rest = map(np.median, time_in_turn(tasks, size.rounds, size.seconds, device))
    name = f"copy of {source.nbytes / 1e6:,.0f} MB"
    return [
        {"limit": name, "GB_per_s": 2 * source.nbytes / copy_ / 1e9},
        {"limit": "smallest operation", "microseconds": 1e6 * smallest},
        *(
            {
                "limit": f"matrix product {n:,} x {k:,} x {m:,}",
                "GFLOP_per_s": 2 * n * k * m / seconds / 1e9,
            }
            for (n, k, m), seconds in zip(shapes, rest, strict=True)
        ),
    ]


def training_step(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """A training step

    The whole of it (gathering the batch, drawing times and noise, the network forwards and backwards,
    the bound, clipping, AdamW, averaging the weights) against the bare network's forward, backward
    and AdamW step with a trivial loss at the same batch. Default network. The matrix products alone
    are priced at the rate of a plain product of the network's inner shape in the same rounds.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a second to import

    a, b = torch.randn(size.batch, 256, device=device), torch.randn(256, 256, device=device)
    rows = []
    for length in (20, 784):
        trainer = make_trainer(random_strings(10_000, length), size, device)
        train(trainer, 20)
        bare = bare_step(trainer)
        with FlopCounterMode(display=False) as counter:
            bare()
        flops = counter.get_total_flops()
        ours, theirs, product = time_in_turn(
            [(train, trainer), (bare,), (torch.mm, a, b)], size.rounds, size.seconds, device
        )
        rows.append(
            {
                "L": length,
                "batch": size.batch,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(theirs),
                **compare(ours, theirs),
                "bar": "at most 1.25",
                "matrix_products_GFLOP": flops / 1e9,
                "matrix_products_alone_ms": flops * milliseconds(product) / (2 * len(a) * 256**2),
            }
        )
    return rows


def papers_sum(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """The paper's gradient against ours

    The paper sums all T terms of the bound for every gradient step; ours draws one term a string. Same
    network, same batch, same code for a term. The sum is written as it should be: term after term,
    each for the whole batch, gradients added up in place, one optimizer step at the end. In each round
    some terms, evenly spaced, stand for the T; the whole sum is run once (not with --quick).
    """
    trainer = make_trainer(random_strings(10_000, PATTERN_LENGTH), size, device)
    x_0 = trainer.loop.batches.batch(0)
    apart = size.T // size.paper_terms
    times = range(apart, size.T + 1, apart)
    tasks = [(train, trainer), (add_papers_gradient, trainer, x_0, times)]
    ours, terms = time_in_turn(tasks, size.rounds, size.seconds, device)
    paper = terms * size.T / len(times)
    row = {
        "L": PATTERN_LENGTH,
        "T": size.T,
        "batch": size.batch,
        "our_step_ms": milliseconds(ours),
        "terms_in_a_round": len(times),
        "papers_step_ms": milliseconds(paper),
        **compare(paper, ours),
        "bar": "at least 300",
    }
    if size.whole_sum:
        row["whole_sum_once_ms"] = 1000 * elapsed((papers_step, trainer, x_0), 1, device)
    return [row]


def sampling(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Samplers

    On repeating patterns (ten bits written twice, T = 2,000), with the averaged weights of a default
    network that the benchmark trains first. A string is invalid if its halves differ. Network calls
    are counted by the row. The ratio is that of the throughput to the plain T-step sampler's.
    """
    patterns = np.arange(1 << PERIOD)[:, None] >> np.arange(PERIOD) & 1
    strings = BitStrings.from_bits(patterns[:, np.arange(PATTERN_LENGTH) % PERIOD])
    settings = ["data.batch_size=256", f"training.epochs={size.epochs}"]
    trainer = make_trainer(strings, size, device, *settings)
    train(trainer, trainer.total_steps)
    diffusion = trainer.averaged
    draw = samplers(diffusion, PATTERN_LENGTH, device)
    tasks = [(function, size.drawn) for function in draw.values()]
    seconds = time_in_turn(tasks, size.few_rounds, size.seconds, device)
    rows = []
    for name, taken in zip(draw, seconds, strict=True):
        slow = name == ANCESTRAL  # and its law is the thinned sampler's
        count = size.drawn if slow else size.judged
        x, calls = count_calls(diffusion, draw[name], count)
        invalid = (x[:, :PERIOD] != x[:, PERIOD:]).any(dim=1).float().mean().item()
        row = {
            "sampler": name,
            "samples_per_s": size.drawn / float(np.median(taken)),
            "network_calls_per_sample": calls,
            "invalid_percent": 100 * invalid,
            "standard_error_percent": 100 * (invalid * (1 - invalid) / count) ** 0.5,
            "judged_samples": count,
        }
        if not slow:
            row |= compare(seconds[0], taken)
        if name == THINNED:
            row["bar"] = "at least 6"
        rows.append(row)
    return rows


def reading(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Reading a text file

    read_bit_strings, which checks every character and packs the bits, against numpy.fromfile of the
    same bytes. The file was just written, so it comes from the system's cache: this is the
    processor's share, and the ratio is at its worst.
    """
    rows = []
    for length in (20, 64, 784):
        path = text_file(folder, size.file_bytes // (length + 1), length)
        tasks = [(read_bit_strings, path), (np.fromfile, path, np.uint8)]
        ours, bytes_alone = time_in_turn(tasks, size.rounds, size.seconds, device)
        megabytes = path.stat().st_size / 1e6
        rows.append(
            {
                "L": length,
                "file_MB": megabytes,
                "reading_MB_per_s": megabytes / float(np.median(ours)),
                "fromfile_MB_per_s": megabytes / float(np.median(bytes_alone)),
                **compare(ours, bytes_alone),
            }
        )
    return rows


def cold_start(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Cold start

    From starting Python to the end of the first training step on a text file of lines of 64 bits, in
    a process of its own, against numpy.fromfile of the same bytes (in the system's cache for both).
    Beside it the part that is starting Python and importing torch and the program.
    """
    path = text_file(folder, size.start_lines, 64)
    rounds = [
        [
            elapsed((np.fromfile, path, np.uint8), 1, device),
            alone(NOTHING, size, device, folder)["seconds"],
            alone(FIRST_STEP, size, device, folder)["seconds"],
        ]
        for _ in range(size.few_rounds)
    ]
    bytes_alone, imports, ours = np.array(rounds).T
    return [
        {
            "lines": size.start_lines,
            "file_MB": path.stat().st_size / 1e6,
            "to_first_step_s": float(np.median(ours)),
            "of_it_imports_s": float(np.median(imports)),
            "fromfile_s": float(np.median(bytes_alone)),
            **compare(ours, bytes_alone),
            "bar": "at most 6 (10,000,000 lines)",
        }
    ]


def membership(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Membership

    Which of 100,000 strings stand among the lines, half of them copies of lines and half fair bits:
    the first answer, whatever has to be prepared for it included, and another one. Beside them a
    Python set of the same lines, built and asked once. Both agree on every string.
    """
    rows = []
    for length in (20, 64, 65, 784):
        strings = random_strings(size.lines, length)
        asked, members = asked_strings(strings), Membership(strings)
        start = time.perf_counter()
        lines = set(map(bytes, strings.packed))
        expected = [bytes(row) in lines for row in asked.packed]
        python_set = time.perf_counter() - start
        if members.contains(asked).tolist() != expected:
            raise RunError(f"Membership is wrong about strings of {length} bits")
        tasks = [(first_answer, strings, asked), (members.contains, asked)]
        first, another = time_in_turn(tasks, size.few_rounds, size.seconds, device)
        rows.append(
            {
                "L": length,
                "lines": size.lines,
                "asked": len(asked),
                "found": sum(expected),
                "first_answer_ms": milliseconds(first),
                "another_answer_ms": milliseconds(another),
                "bar": "at most 1,000",
                "python_set_ms": 1000 * python_set,
            }
        )
    return rows


# ---------------------------------------------------------------------------------------- memory


def memory(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Peak memory

    Of processes that do one thing alone, and over that of a process that only imports everything.
    """
    rows = []
    for name in things_to_do_alone(size, device, folder):
        if name == SHARED_STEPS:
            continue
        peak = alone(name, size, device, folder)
        row = {"process": name, "peak_MB": peak["peak_MB"]}
        if rows and row["peak_MB"] is not None:
            row["over_imports_MB"] = row["peak_MB"] - rows[0]["peak_MB"]
        if name == FIRST_STEP:
            row["bar"] = "over imports: at most 250"
        if device.type == "cuda":
            row["device_peak_MB"] = peak["device_peak_MB"]
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------- processes


def two_processes(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Two processes

    A training step at L = 784 of two processes, started by torchrun on this machine's processor, and of
    one of them while the other one waits, in turn. Each has a single thread. The ratio is that of the
    throughputs; the batch is that of both together.
    """
    return alone(SHARED_STEPS, size, torch.device("cpu"), folder, processes=2)["rows"]


# ---------------------------------------------------------------------------------------- growth


def growth_L(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the length of the strings

    A training step and a bare network step at a batch of 1,024, and drawing 100 strings on a grid of
    50 steps.
    """
    rows = []
    for length in size.lengths:
        trainer = make_trainer(random_strings(10_000, length), size, device)
        grid = samplers(trainer.averaged, length, device)["grid, K = 50"]
        tasks = [(train, trainer), (bare_step(trainer),), (grid, 100)]
        ours, bare, draw = time_in_turn(tasks, size.rounds, size.seconds, device)
        rows.append(
            {
                "L": length,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(bare),
                **compare(ours, bare),
                "100_samples_on_a_grid_ms": milliseconds(draw),
            }
        )
    return rows


def growth_T(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the number of steps of the process

    A training step (L = 20, batch 1,024; all T in turn, the ratio is to the smallest), and drawing 100
    strings from the exact law with the thinned sampler.
    """
    strings = random_strings(10_000, PATTERN_LENGTH)
    trainers = [make_trainer(strings, size, device, f"model.T={T}") for T in size.process_steps]
    draws = [samplers(t.averaged, PATTERN_LENGTH, device)[THINNED] for t in trainers]
    steps = time_in_turn([(train, t) for t in trainers], size.rounds, size.seconds, device)
    samples = time_in_turn([(draw, 100) for draw in draws], size.few_rounds, size.seconds, device)
    rows = []
    for trainer, ours, draw in zip(trainers, steps, samples, strict=True):
        proposals = ProposalTimes(trainer.loop.diffusion.process.flips.max_flip_probability())
        rows.append(
            {
                "T": trainer.loop.diffusion.T,
                "training_step_ms": milliseconds(ours),
                **compare(ours, steps[0]),
                "bar": "0.95 to 1.05",
                "100_samples_thinned_ms": milliseconds(draw),
                "expected_network_calls": proposals.expected_network_calls(PATTERN_LENGTH),
            }
        )
    return rows


def growth_lines(size: Size, device: torch.device, folder: Path) -> list[dict]:
    """Growth with the number of lines

    Lines of 64 bits: a training step at a batch of 1,024 (all numbers in turn, the ratio is to the
    smallest), reading the text, and membership: the first answer for 100,000 strings.
    """
    sets = [random_strings(lines, 64) for lines in size.line_counts]
    trainers = [make_trainer(strings, size, device) for strings in sets]
    steps = time_in_turn([(train, t) for t in trainers], size.rounds, size.seconds, device)
    asked = asked_strings(sets[-1])
    rows = []
    for strings, ours in zip(sets, steps, strict=True):
        path = text_file(folder, len(strings), 64)
        tasks = [(read_bit_strings, path), (first_answer, strings, asked)]
        read, answer = time_in_turn(tasks, size.few_rounds, size.seconds, device)
        rows.append(
            {
                "lines": len(strings),
                "training_step_ms": milliseconds(ours),
                **compare(ours, steps[0]),
                "bar": "0.95 to 1.05",
                "reading_ms": milliseconds(read),
                "membership_ms": milliseconds(answer),
            }
        )
    return rows


def growth_batch(size: Size, device: torch.device, _folder: Path) -> list[dict]:
    """Growth with the batch

    A training step and a bare network step at L = 20.
    """
    strings = random_strings(50_000, PATTERN_LENGTH)
    rows = []
    for batch in size.batches:
        trainer = make_trainer(strings, size, device, f"data.batch_size={batch}")
        tasks = [(train, trainer), (bare_step(trainer),)]
        ours, bare = time_in_turn(tasks, size.rounds, size.seconds, device)
        rows.append(
            {
                "batch": batch,
                "training_step_ms": milliseconds(ours),
                "bare_network_step_ms": milliseconds(bare),
                **compare(ours, bare),
                "microseconds_per_string": 1000 * milliseconds(ours) / batch,
            }
        )
    return rows


GROWTH = [growth_L, growth_T, growth_lines, growth_batch]
PARTS = [
    limits,
    training_step,
    papers_sum,
    sampling,
    reading,
    cold_start,
    membership,
    memory,
    two_processes,
    *GROWTH,
]
