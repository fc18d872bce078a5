"""Finding, importing and trying out the user's ReverseModel."""

import contextlib
import copy
import difflib
import hashlib
import inspect
import linecache
import os
import reprlib
import sys
import traceback
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..bits.process import BernoulliDiffusionProcess
from ..config import Config
from ..diffusion import Diffusion
from ..kinds import Samples, kind_of
from ..noise import derive_seed
from ..system.errors import UserError, is_out_of_memory, printable
from ..system.files import read_text
from ..weights import represented

PACKAGE_FILE = Path(__file__).parents[1] / "reverse_model.py"
PACKAGED = PACKAGE_FILE.parent / "networks"  # further networks, installed with the package
FOR_TABLES = PACKAGED / "columns.py"
FORMER = PACKAGED / "former"  # reverse_model.py of earlier versions, which checkpoints still name
FILE_NAME = "reverse_model.py"
# Streams of random numbers, of the run's seed: for the initial weights, and for what prepare sees.
WEIGHTS, PREPARE = 11, 15
MOST_PREPARED, MOST_PREPARED_VALUES = 200_000, 1 << 26  # samples that it sees, and values in all
FAILURES = (Exception, SystemExit)  # of the user's code; sys.exit() in it must not end us quietly


class Source:
    """The text of a reverse_model.py and where it was read."""

    def __init__(self, path: Path | str, text: str):
        self.path, self.text = path, text
        self.sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def live_source(run_dir: Path | None, default: Path | None = None) -> Source:
    """The reverse_model.py that training in run_dir would use: its own, or else the package's.

    default: the package's for the run's process, if it is another one than that for bits.
    """
    own = run_dir / FILE_NAME if run_dir else None
    return _read(own if own and os.path.lexists(own) else default or PACKAGE_FILE)


def default_network(config: Config, is_table: bool) -> Path | None:
    """The package's file for a run that names none; None for reverse_model.py."""
    if is_table and config.model.schedule == "harmonic":  # columns.py knows no other
        return FOR_TABLES
    return kind_of(config).NETWORK


def configured_network(config: Config, is_table: bool) -> Path | None:
    """The package's file for a run, as model.network says or else as suits the data."""
    name = config.model.network
    return PACKAGED / f"{name}.py" if name else default_network(config, is_table)


def packaged_sources(folder: Path = PACKAGED) -> list[Source]:
    """The networks in a folder of the package, in the order of their names."""
    return [_read(path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]


def named_source(name: str, default: Path | None = None) -> Source:
    """The network that train.py --network asks for: a file, or one of the package's by its name.

    default: the package's file for the run's process, called "default".
    """
    packaged = {source.path.stem: source for source in packaged_sources()}
    if name in packaged and not os.path.lexists(name):
        return packaged[name]
    if name == "default" and not os.path.lexists(name):
        return _read(default or PACKAGE_FILE)
    try:
        return _read(Path(name))
    except UserError as error:
        known = ", ".join(["default", *packaged])
        raise UserError(f"{error}; expected a file like reverse_model.py, or {known}") from None


def _read(path: Path) -> Source:
    return Source(path, read_text(path).replace("\r\n", "\n"))


def load_class(source: Source) -> type[nn.Module]:
    """Run source and return its ReverseModel. Raises UserError if there is none."""
    path = str(source.path)
    # Found in sys.modules by its name, as dataclasses, pickle and inspect need it. One name a text:
    # the networks of two checkpoints live side by side.
    module = types.ModuleType(f"reverse_model_{source.sha256[:16]}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    # so that tracebacks in the user's code show its lines, as it was when it was loaded
    linecache.cache[path] = len(source.text), None, source.text.splitlines(keepends=True), path
    try:
        exec(compile(source.text, path, "exec", dont_inherit=True), module.__dict__)
    except FAILURES as error:
        sys.modules.pop(module.__name__, None)
        what = _is_beside(source, error) or f"cannot be imported: {_reason(error)}"
        raise _user_error(source, what, error) from error
    found = getattr(module, "ReverseModel", None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = "has no class" if found is None else "has something else called"
        raise _user_error(source, f"{what} ReverseModel; expected `class ReverseModel(nn.Module)`")
    return found


def _is_beside(source: Source, error: BaseException) -> str | None:
    """What to say if error is that a module was not found which lies beside source; else None."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    name = error.name.partition(".")[0]
    beside = Path(source.path).parent
    if not ((beside / f"{name}.py").is_file() or (beside / name).is_dir()):
        return None
    return (
        f"cannot import {name}, which lies beside it: a network is one file, which is kept with results"
        f" and checkpoints as it was; put what it needs of {name} into {FILE_NAME} itself"
    )


def build(source: Source, sequence_length: int, T: int, options: dict) -> nn.Module:
    """ReverseModel(sequence_length, T, **options). Raises UserError if it refuses them."""
    cls = load_class(source)
    parameters = inspect.signature(cls).parameters.values()
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    names = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p not in given
    ]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        errors = [_unknown_option(source, name, names) for name in options if name not in names]
        if errors:
            raise UserError("\n".join(errors))
    arguments = [str(sequence_length), str(T)]
    arguments += [f"{name}={reprlib.repr(value)}" for name, value in options.items()]
    with _blaming(source, f"ReverseModel({', '.join(arguments)}) failed", cls.__init__):
        return cls(sequence_length, T, **options)


def laid_out(source: Source, options: dict, **known) -> dict:
    """options, with what is known of the data, such as data.shape, where the network has an option of
    that name that is not set."""
    takes = inspect.signature(load_class(source)).parameters
    return {name: value for name, value in known.items() if value and name in takes} | options


def new_diffusion(
    source: Source, train: Samples, config: Config, device, *, fresh: bool = True
) -> Diffusion:
    """The run's process and a new network on device, tried out. Raises UserError.

    fresh: whether the network is to look at train, if it can; weights that are loaded have done so.
    config's options of the network become what it was built with.
    """
    kind, length, T = kind_of(config), train.length, config.model.T
    torch.manual_seed(derive_seed(config.training.seed, WEIGHTS))
    options = config.model.reverse_model
    config.model.reverse_model = laid_out(source, options, shape=config.data.shape)
    model = build(source, length, T, kind.network_options(config))
    if fresh and hasattr(model, "prepare"):
        seed = derive_seed(config.training.seed, PREPARE)
        torch.manual_seed(seed)
        train = represented(train)
        size = min(len(train), MOST_PREPARED, max(1, MOST_PREPARED_VALUES // length))
        rows = np.random.default_rng(seed).choice(len(train), size, replace=False)
        prepare(source, model, train.tensor(np.sort(rows)))
    try_out(source, model, length, T, kind.new_process(config, train, "cpu"))
    return Diffusion(kind.new_process(config, train, device), model.to(device))


def _unknown_option(source: Source, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
    return printable(f"model.reverse_model.{name}: {source.path} has no such option; {hint}")


class Ensemble(nn.Module):
    """The weighted mean of what several networks say: sum_m shares[m] networks[m](x_t, t).

    It is one reverse model like any other, and its bound is a bound.
    """

    def __init__(self, networks: list[nn.Module], shares: list[float]):
        super().__init__()
        self.networks, self.shares = nn.ModuleList(networks), shares

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        outputs = (share * f(x_t, t) for share, f in zip(self.shares, self.networks, strict=True))
        return sum(outputs)


def prepare(source: Source, model: nn.Module, x_0: torch.Tensor) -> None:
    """Let model look at training data, (n, L) as the process sees them. Raises UserError if it fails."""
    look, before, shapes = model.prepare, x_0.clone(), _shapes(model)
    with _blaming(source, f"prepare failed on {len(x_0):,} training samples", look):
        look(x_0)
    problem = None
    if not x_0.equal(before):
        problem = "prepare changed x_0 in place; expected it to leave it as it is"
    elif _shapes(model) != shapes:
        problem = (
            "prepare added, removed or reshaped parameters or buffers; expected it to set those that"
            " __init__ made, so that checkpoints fit"
        )
    elif not all(w.isfinite().all() for w in model.state_dict().values()):
        problem = "prepare left parameters or buffers that are not finite"
    if problem:
        raise _user_error(source, problem, None, look)


def _shapes(model: nn.Module) -> dict:
    return {name: (w.shape, w.dtype) for name, w in model.state_dict().items()}


def try_out(source: Source, model: nn.Module, sequence_length: int, T: int, process=None) -> None:
    """Run model on a small batch, forwards and backwards. Raises UserError if it cannot be trained.

    Leaves model as it was, torch's random state too. process: the one it is for; by default of bits.
    """
    with _blaming(source, "cannot be copied, as the averaged weights are", type(model).__init__):
        trial = copy.deepcopy(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    process, forward = process or BernoulliDiffusionProcess(T, device), type(model).forward
    cure = f"; expected forward(x_t, t) to take x_t (B, {sequence_length}) and t (B,)"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        with _blaming(source, "failed on a small batch", forward, cure):
            problem = _find_problem(trial, sequence_length, process)
    if problem:
        raise _user_error(source, problem, None, forward)


def _find_problem(model: nn.Module, L: int, process) -> str | None:
    """What is wrong with model, or None. Trains it for one step."""
    T, device = process.T, process.alpha.device
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return "ReverseModel has no trainable parameters"
    if any(nn.parameter.is_lazy(p) for p in parameters):
        return "ReverseModel has lazy layers; expected layers that are told their sizes"
    x_t = process.sample_prior(torch.rand(4, L, device=device))
    t = torch.randint(1, T + 1, (4,), device=device)
    t[0], t[1] = 1, T
    inputs = x_t.clone(), t.clone()

    model.train()
    logits = model(*inputs)
    problem = _wrong_output(logits, x_t, process)
    if problem:
        return problem
    if not (inputs[0].equal(x_t) and inputs[1].equal(t)):
        return "forward changed x_t or t in place; expected it to leave them as they are"
    if not logits.requires_grad:
        return "forward's output is detached from the parameters, so nothing would be learnt"
    process.step_divergence(x_t, x_t, logits.float(), t, torch.zeros_like(t)).sum().backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not all(g.isfinite().all() for g in gradients):
        return f"the gradient is not finite on {process.input_name}"
    if not any(g.any() for g in gradients):
        return (
            "the gradient is zero everywhere, so nothing would be learnt; does the output go"
            " through zero times something that starts at zero?"
        )
    with torch.no_grad():
        for p in parameters:  # an output layer that starts at zero hides what is before it
            if p.grad is not None:
                p -= 0.001 * p.grad.sign()
        model.eval()
        together, again = model(x_t, t), model(x_t, t)
        alone = [model(x_t[i : i + 1], t[i : i + 1]) for i in range(len(x_t))]
    for output, row in ((together, x_t), *((output, x_t[:1]) for output in alone)):
        problem = _wrong_output(output, row, process)
        if problem:
            return f"after one step of training, in eval mode: {problem}"
    if not _close(again, together):
        return (
            "two calls in eval mode on the same x_t and t differ; expected dropout and other noise"
            " in training mode only"
        )
    if not _close(torch.cat(alone), together):
        return (
            "the output of a row depends on the other rows of the batch (in eval mode);"
            " expected every row to be treated on its own"
        )
    return None


def _wrong_output(logits, x_t: torch.Tensor, process) -> str | None:
    shape = len(x_t), process.output_width(x_t.shape[1])
    letters = "(B, L)" if shape == x_t.shape else "(B, 2 L)"
    wanted = f"expected {process.output_name} of shape {letters} = {shape}"
    if not isinstance(logits, torch.Tensor):
        return f"forward returned {type(logits).__name__}; {wanted}"
    if logits.shape != shape:
        return f"forward returned shape {tuple(logits.shape)}; {wanted}"
    if not logits.is_floating_point():
        return f"forward returned {logits.dtype}; {wanted} in floating point"
    if not logits.isfinite().all():
        return f"forward returned numbers that are not finite on {process.input_name}; {wanted}"
    return None


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Are the outputs equal but for rounding? Measured by how far the rows of b lie apart."""
    spread = (b - b.mean(dim=0)).abs().max()
    rounding = max(torch.finfo(b.dtype).eps, 1e-5) * b.abs().max().clamp_min(0.1)
    return bool((a - b).abs().max() <= 0.05 * spread + rounding)


@contextlib.contextmanager
def _blaming(source: Source, what: str, function, cure: str = ""):
    """While the user's function runs: whatever it raises becomes a UserError that begins with what."""
    try:
        yield
    except FAILURES as error:
        if is_out_of_memory(error):
            raise  # the command says what helps
        raise _user_error(source, f"{what}: {_reason(error)}{cure}", error, function) from error


def _user_error(source: Source, what: str, error: BaseException | None = None, function=None):
    """The UserError for what, at the line of the user's file where it happened.

    That is the deepest one in error's traceback or, if there is none, where a function begins.
    """
    path, line = str(source.path), None
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno
    elif error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        line = lines[-1] if lines else None
    code = getattr(inspect.unwrap(function), "__code__", None) if function else None
    if line is None and code and code.co_filename == path:
        line = code.co_firstlineno
    return UserError(printable(f"{path}:{line}: {what}" if line else f"{path}: {what}"))


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    first_line = (str(error).strip().splitlines() or ["(no message)"])[0]
    return f"{type(error).__name__}: {first_line}"
