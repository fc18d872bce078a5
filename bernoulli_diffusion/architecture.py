"""Finding, importing and trying out the user's ReverseModel."""

import difflib
import hashlib
import inspect
import linecache
import traceback
import types
from pathlib import Path

import torch
from torch import nn

from .errors import UserError, printable

PACKAGE_FILE = Path(__file__).with_name("reverse_model.py")
FILE_NAME = "reverse_model.py"


class Source:
    """The text of a reverse_model.py and where it was read."""

    def __init__(self, path: Path | str, text: str):
        self.path, self.text = path, text
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()


def live_source(run_dir: Path | None) -> Source:
    """The reverse_model.py that training in run_dir would use: its own, or else the package's."""
    for path in [run_dir / FILE_NAME] if run_dir else []:
        if path.exists():
            return _read(path)
    return _read(PACKAGE_FILE)


def _read(path: Path) -> Source:
    try:
        return Source(path, path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def load_class(source: Source) -> type[nn.Module]:
    """Run source and return its ReverseModel. Raises UserError if there is none."""
    module = types.ModuleType("reverse_model")
    module.__file__ = str(source.path)
    # so that tracebacks in the user's code show its lines, as it was when it was loaded
    linecache.cache[str(source.path)] = (
        len(source.text), None, source.text.splitlines(keepends=True), str(source.path),
    )  # fmt: skip
    try:
        exec(compile(source.text, str(source.path), "exec"), module.__dict__)
    except Exception as error:
        raise UserError(f"{_place(source, error)}: cannot be imported: {_reason(error)}") from error
    found = getattr(module, "ReverseModel", None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = "has no class ReverseModel" if found is None else "its ReverseModel is not an nn.Module"
        raise UserError(f"{source.path}: {what}; expected `class ReverseModel(nn.Module)`")
    return found


def build(source: Source, sequence_length: int, T: int, options: dict) -> nn.Module:
    """ReverseModel(sequence_length, T, **options). Raises UserError if it refuses them."""
    cls = load_class(source)
    parameters = inspect.signature(cls).parameters
    names = [n for n in parameters if n not in ("sequence_length", "T")]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in names and not takes_any:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
            raise UserError(
                printable(f"model.reverse_model.{name}: {source.path} has no such option; {hint}")
            )
    try:
        return cls(sequence_length, T, **options)
    except Exception as error:
        given = ", ".join(f"{k}={v!r}" for k, v in options.items())
        call = f"ReverseModel({sequence_length}, {T}{', ' if given else ''}{given})"
        raise UserError(printable(f"{_place(source, error)}: {call} failed: {_reason(error)}")) from error


def try_out(source: Source, model: nn.Module, sequence_length: int, T: int) -> None:
    """Run model on a small batch, forwards and backwards. Raises UserError saying what was expected.

    Leaves model as it was, torch's random state too.
    """
    expected = f"expected forward(x_t, t) to take x_t (B, {sequence_length}) and t (B,)"
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        x_t = (torch.rand(4, sequence_length, device=device) < 0.5).float()
        t = torch.randint(1, T + 1, (4,), device=device)
        saved = {name: value.clone() for name, value in model.state_dict().items()}
        training = model.training
        try:
            model.train()
            logits = model(x_t, t)
            problem = _wrong_output(logits, x_t)
            if problem:
                raise UserError(f"{source.path}: {problem}")
            logits.sigmoid().sub(x_t).square().sum().backward()
            _check_gradients(source, model)
            model.eval()
            with torch.no_grad():
                _check_rows_are_independent(source, model, x_t, t)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{_place(source, error)}: forward failed: {_reason(error)}; {expected}"
            ) from error
        finally:
            model.zero_grad(set_to_none=True)
            model.load_state_dict(saved)
            model.train(training)


def _wrong_output(logits, x_t: torch.Tensor) -> str | None:
    wanted = f"expected log-odds of x_0 of shape (B, L) = {tuple(x_t.shape)}"
    if not isinstance(logits, torch.Tensor):
        return f"forward returned {type(logits).__name__}; {wanted}"
    if logits.shape != x_t.shape:
        return f"forward returned shape {tuple(logits.shape)}; {wanted}"
    if not logits.is_floating_point():
        return f"forward returned {logits.dtype}; {wanted} in floating point"
    if not logits.isfinite().all():
        return f"forward returned numbers that are not finite on fair bits; {wanted}"
    return None


def _check_gradients(source: Source, model: nn.Module) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise UserError(f"{source.path}: ReverseModel has no trainable parameters")
    gradients = [p.grad for p in trainable if p.grad is not None]
    if not any(g.any() for g in gradients):
        raise UserError(
            f"{source.path}: the gradient is zero everywhere, so nothing would be learnt; is the"
            " output detached, or zero times something that starts at zero?"
        )
    if not all(g.isfinite().all() for g in gradients):
        raise UserError(f"{source.path}: the gradient is not finite on fair bits")


def _check_rows_are_independent(source, model, x_t, t) -> None:
    alone = torch.cat([model(x_t[i : i + 1], t[i : i + 1]) for i in range(len(x_t))])
    together = model(x_t, t)
    if not torch.allclose(alone, together, rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{source.path}: the output of a row depends on the other rows of the batch (in eval"
            " mode); expected every row to be treated on its own"
        )


def _place(source: Source, error: BaseException) -> str:
    """file:line of the deepest line of the user's file in the error's traceback."""
    if isinstance(error, SyntaxError) and error.filename == str(source.path):
        return f"{source.path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == str(source.path)]
    return f"{source.path}:{lines[-1]}" if lines else str(source.path)


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    first_line = (str(error).strip().splitlines() or ["(no message)"])[0]
    return printable(f"{type(error).__name__}: {first_line}")
