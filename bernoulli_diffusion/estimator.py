"""BernoulliDiffusion: the whole of it from Python, in the habits of scikit-learn."""

import math
import operator
import tempfile
from pathlib import Path

import numpy as np
import torch

from . import config as config_module
from .bits.data import BitStrings
from .conditioning import conditional_samples
from .config import Config
from .kinds import kind_of
from .likelihood import bound_of_each, plan_bound
from .sampling import sample
from .system.errors import UserError
from .tables import answering, forms, frames, generating, planning, rules, writing
from .tables.description import known_type
from .tables.encoding import Encoding
from .tables.table import Strings, Table, Values, numbered_names
from .training import checkpoint as checkpoints
from .training.loop import fit
from .training.network import configured_network, laid_out, live_source
from .weights import checked

try:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
except ImportError:  # a few lines stand in for it

    class NotFittedError(ValueError, AttributeError):
        """A method that needs a trained model was called before fit."""

    class BaseEstimator:
        """The two methods of scikit-learn's that its tools ask for."""

        def get_params(self, deep: bool = True) -> dict:
            names = type(self).__init__.__code__.co_varnames
            return {name: getattr(self, name) for name in names[1:] if hasattr(self, name)}

        def set_params(self, **params):
            for name, value in params.items():
                if name not in self.get_params():
                    raise ValueError(f"invalid parameter {name!r}")
                setattr(self, name, value)
            return self


TEXT = "a table with text goes into a pandas DataFrame"
PRECISION = 0.01  # of a mean log-density: its standard error over the noise that is drawn


class BernoulliDiffusion(BaseEstimator):
    """A model of the distribution of the rows of X.

    X: an array or a tensor (N, L) of 0 and 1 or bool, or any table: a pandas DataFrame, or an array of
    numbers, whose columns are encoded as by `python -m bernoulli_diffusion.prepare`.

    epochs, max_minutes: how long to train (default: as train.py); T: diffusion steps; lr; batch_size;
    settings: any other key of config.yaml, {"training.patience": 5}; types: of columns,
    {"zip": "category", "name": "left out"}; steps: network calls of a sample, None for the model's
    exact law; random_state: an int; device: of torch.

    >>> model = BernoulliDiffusion(epochs=100).fit(X, X_val=X_val)
    >>> synthetic = model.sample(1000)           # of the form of X
    >>> model.score(X_test)                      # mean log-density, in nats; the more the better
    >>> model.conditional(X_with_gaps, n=5)      # NaN, None (of bits also -1): to be filled in
    >>> model.save("model.pt"); model = BernoulliDiffusion.load("model.pt")
    """

    def __init__(
        self,
        *,
        epochs=None,
        max_minutes=None,
        T=2000,
        lr=0.001,
        batch_size=256,
        settings=None,
        types=None,
        steps=64,
        random_state=0,
        device="cpu",
    ):
        self.epochs, self.max_minutes, self.T, self.lr = epochs, max_minutes, T, lr
        self.batch_size, self.settings, self.types = batch_size, settings, types
        self.steps, self.random_state, self.device = steps, random_state, device

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True  # in a table a gap is a value of its own
        return tags

    # --- training

    def fit(self, X, y=None, X_val=None, sample_weight=None):
        """Train on the rows of X; with X_val, keep the weights that are best on its rows.

        sample_weight: (N,), how much each row counts, as copies of it would. y is not used. Raises
        ValueError (UserError) for what is no table.
        """
        config = self._config()
        if "weight" in (self.types or {}).values():
            raise ValueError("types: weights of rows are given to fit, as sample_weight")
        self._check_device()
        self.encoding_ = None
        table = self._table_of(X, is_table=bool(self.types))
        if len(table) < 2:
            raise ValueError("X has one row (n_samples=1); there is nothing to learn from it")
        counts = _weights_of(sample_weight, len(table))
        if isinstance(table, Strings):
            self.encoding_, bits = None, table.bits
        else:
            with _as_value_error():
                wishes = {
                    name: planning.Wish(type=known_type(type_, f"types[{name!r}]"))
                    for name, type_ in (self.types or {}).items()
                }
                train, every = planning.as_counts(counts, len(table)), table
                if X_val is not None:  # levels and gaps come from all rows
                    every = planning.joined([table, self._table_of(X_val, is_table=True)])
                    train = np.append(train, np.zeros(len(every) - len(table)))
                self.encoding_ = planning.plan(every, train, wishes)
                bits = self.encoding_.encode(table)
        self.n_features_in_ = _width(X)
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.array([str(c) for c in X.columns], object)
        self._as = type(X) if isinstance(X, torch.Tensor) else np.ndarray
        self._dtype = X.dtype if hasattr(X, "dtype") else None
        val = None if X_val is None else BitStrings.from_bits(self._bits(X_val))
        if (bits < 0).any():
            raise ValueError("X has unknown bits; leave those rows out")
        source = live_source(None, configured_network(config, self.encoding_ is not None))
        if self.encoding_:
            known = {"columns": self.encoding_.layout()}
            config.model.reverse_model = laid_out(source, config.model.reverse_model, **known)
        strings = BitStrings.from_bits(bits)
        strings.weights = counts
        with _as_value_error():
            self.diffusion_ = fit(strings, config, val, source=source, device=self.device)
        self.config_, self.length_, self._source = config, bits.shape[1], source
        return self

    def _config(self) -> Config:
        config = Config()
        chosen = {
            "training.epochs": self.epochs,
            "training.max_minutes": self.max_minutes,
            "training.lr": self.lr,
            "training.seed": _seed(self.random_state),
            "model.T": self.T,
            "data.batch_size": self.batch_size,
        } | (self.settings or {})
        overrides = [f"{key}={value}" for key, value in chosen.items() if value is not None]
        with _as_value_error():
            config_module.apply_overrides(config, overrides)
            kind_of(config).check_config(config, "settings")
            _require_bits(config, "settings")
        return config

    # --- what a trained model is asked

    def sample(self, n_samples: int = 1, random_state=None):
        """n_samples rows of the form of X. random_state: an int; default: the model's own."""
        self._check_is_fitted()
        _check_count("n_samples", n_samples)
        seed = _seed(self.random_state if random_state is None else random_state)
        device = self.diffusion_.process.alpha.device
        if self.encoding_ is None:
            rows = range(n_samples)
            parts = sample(self.diffusion_, self.length_, rows, seed, self.steps, device=device)
            return self._returned(
                torch.cat([torch.zeros(0, self.length_), *(p.cpu() for p in parts)])
            )
        parts = list(
            generating.sample_records(
                self.encoding_, self.diffusion_, range(n_samples), seed, self.steps, device=device
            )
        )
        codes = np.concatenate([p.codes for p in parts])
        return self._table(codes, np.concatenate([p.u for p in parts]))

    def score_samples(self, X) -> np.ndarray:
        """(N,) nats: a lower bound on log p of each row (the variational bound, estimated)."""
        self._check_is_fitted()
        strings = BitStrings.from_bits(self._bits(X))
        seed, device = _seed(self.random_state), self.diffusion_.process.alpha.device
        effort = plan_bound(self.diffusion_, strings, PRECISION, seed, device)
        parts = bound_of_each(self.diffusion_, strings, effort, seed, device)
        return -math.log(2) * torch.cat([bits for bits, _ in parts]).numpy()

    def score(self, X, y=None) -> float:
        """Mean of score_samples: the more the better."""
        return float(self.score_samples(X).mean())

    def conditional(self, X, n: int = 1, random_state=None, particles: int = 64):
        """Each row of X n times, one below the other, with its gaps filled by draws given the rest."""
        self._check_is_fitted()
        _check_count("n", n)
        seed = _seed(self.random_state if random_state is None else random_state)
        if self.encoding_ is None:
            patterns = torch.from_numpy(self._bits(X, may_be_unknown=True))
            evidence = self.diffusion_.process.evidence_of(patterns)
            runs = conditional_samples(
                self.diffusion_, evidence, n, seed, particles, False, self.steps
            )
            return self._returned(torch.cat([run.samples for run in runs]).cpu())
        table = self._table_of(X)
        known = rules.solved(self.encoding_.columns, table)
        with _as_value_error():
            rows = list(
                generating.fill(
                    self.encoding_, self.diffusion_, known, n, seed, particles, self.steps
                )
            )
        codes, u = (np.concatenate([getattr(r, k) for r in rows]) for k in ("codes", "u"))
        drawn = self._table(codes, u)
        made = answering.put_in(self.encoding_, known, codes, u, n)
        certain = self._certain(table, known, made, n)
        if isinstance(drawn, np.ndarray):
            given = np.repeat(np.asarray(X), n, axis=0)
            filled = np.where(given != given, drawn, given)
            for name, (where, texts) in certain.items():
                filled[where, list(table.columns).index(name)] = [float(t) for t in texts]
            return filled
        given = X.iloc[np.repeat(np.arange(len(X)), n)].reset_index(drop=True)
        for name in drawn:  # what is left out of the model stays
            given[name] = _filled(given[name], drawn[name]) if name in given else drawn[name]
        for name, (where, texts) in certain.items():
            values = Values.of(texts, self.encoding_.column(name).dtype)
            column = list(table.columns).index(name)
            given.iloc[where, column] = frames.to_series(*values[:3]).to_numpy()
        return given

    def _certain(self, table: Table, known: Table, made: dict, n: int) -> dict:
        """By column, (rows, texts) of the gaps that are computed from what stands beside them."""
        found = {}
        for name, values in table.columns.items():
            if name not in {c.name for c in self.encoding_.columns}:
                continue
            is_computed = self.encoding_.column(name).type == "determined"
            gaps = (values.codes < 0) & (is_computed | (known.columns[name].codes >= 0))
            where = np.flatnonzero(np.repeat(gaps, n))
            texts = [made[name].text(row) for row in where]
            there = [i for i, t in enumerate(texts) if t is not None]
            if there:
                found[name] = where[there], [texts[i] for i in there]
        return found

    # --- files

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, which generate.py and evaluate take as well."""
        self._check_is_fitted()
        weights = dict(self.diffusion_.reverse_model.state_dict())
        checkpoints.save(
            Path(path),
            {
                "config": config_module.to_yaml(self.config_),
                "sequence_length": self.length_,
                "T": self.config_.model.T,
                "process_state": self.diffusion_.process.state(),
                "columns": self.encoding_.state() if self.encoding_ else {},
                "reverse_model_source": self._source.text,
                "reverse_model_sha256": self._source.sha256,
                "weights": weights,
                "averaged_weights": weights,
                "optimizer": {},
                "epoch": 0,
                "step": 0,
                "epoch_losses": [],
                "best_bound": math.inf,
                "validations_without_progress": 0,
                "seconds": 0.0,
                "results": "{}",
            },
        )

    @classmethod
    def load(cls, path: str | Path, trust_code: bool = False, device: str = "cpu"):
        """The model of a checkpoint, whether save or train.py wrote it. Raises UserError."""
        saved = checkpoints.load(Path(path))
        config = checkpoints.config_of(saved, Path(path))
        _require_bits(config, str(path))
        model = cls(T=config.model.T, lr=config.training.lr, device=device)
        model.diffusion_ = checkpoints.restore(
            saved, Path(path), trust_code=trust_code, device=device
        )
        model.config_, model.length_ = config, saved["sequence_length"]
        model._source = checkpoints.source_of(saved, Path(path), trust_code, "trust_code=True")
        model.encoding_ = Encoding.of_state(saved["columns"]) if saved["columns"] else None
        columns = model.encoding_.columns if model.encoding_ else None
        model.n_features_in_ = len(columns) if columns else model.length_
        if columns and model.encoding_.form.get("kind") != "array":
            model.feature_names_in_ = np.array([c.name for c in columns], object)
        model._as, model._dtype = np.ndarray, None
        return model

    def __getstate__(self) -> dict:
        """For pickle and joblib, which know no class of a network's file: the bytes of a checkpoint."""
        state = self.__dict__.copy()
        if "diffusion_" in state:
            with tempfile.TemporaryDirectory() as folder:
                self.save(Path(folder) / "model.pt")
                state["diffusion_"] = (Path(folder) / "model.pt").read_bytes()
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if "diffusion_" in state:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.pt"
                path.write_bytes(state["diffusion_"])
                self.diffusion_ = checkpoints.restore(  # what is unpickled is trusted
                    checkpoints.load(path), path, trust_code=True, device=self.device
                )

    # --- X in and out

    def _table_of(self, X, may_be_unknown: bool = False, is_table: bool = False) -> Table | Strings:
        """X as strings of bits, or as a table, as which it is known. Raises ValueError."""
        if hasattr(X, "iloc") and hasattr(X, "columns"):
            with _as_value_error():
                return frames.read_frame(X, "X")
        if isinstance(X, str | Path):
            raise ValueError(
                f"X is a name, {str(X)!r}; read the file first, as pandas.read_csv does"
            )
        if isinstance(X, torch.Tensor):
            X = X.cpu().numpy()
        if hasattr(X, "toarray"):
            raise TypeError("sparse input is not supported; use X.toarray()")
        X = np.asarray(X)
        if X.dtype.kind == "O":
            try:
                X = X.astype(float)
            except ValueError as error:
                raise ValueError(f"{error}; {TEXT}") from None
        if X.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {X.ndim}D array instead. Reshape your data: rows x columns"
            )
        if 0 in X.shape:
            raise ValueError(
                f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s)"
                f" (shape={X.shape}) while a minimum of 1 is required."
            )
        if X.dtype.kind == "c":
            raise ValueError("Complex data not supported")
        if X.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers or bool, found an array of {X.dtype}; {TEXT}")
        as_bits = not is_table and getattr(self, "encoding_", None) is None
        known = X[X == X] if X.dtype.kind == "f" else X
        if as_bits and np.isin(known, [0, 1, -1] if may_be_unknown else [0, 1]).all():
            unknown = (X != X) | (X == -1)
            if unknown.any() and not may_be_unknown:
                raise ValueError("X contains NaN: of bits all must be known; see conditional")
            return Strings(np.where(unknown, -1, X).astype(np.int8), "an array")
        if not np.isfinite(known).all():
            raise ValueError("X contains infinity")
        names = numbered_names(X.shape[1])
        columns = dict(zip(names, map(forms.of_array_column, X.T), strict=True))
        return Table(columns, "an array", {"kind": "array", "dtype": str(X.dtype)})

    def _bits(self, X, may_be_unknown: bool = False) -> np.ndarray:
        is_frame = hasattr(X, "columns")  # what it lacks is told by name; ids may be missing
        if _width(X) != self.n_features_in_ and not (is_frame and self.encoding_):
            raise ValueError(
                f"X has {_width(X)} features, but {type(self).__name__} is expecting"
                f" {self.n_features_in_} features as input"
            )
        table = self._table_of(X, may_be_unknown)
        if self.encoding_ is None:
            if not isinstance(table, Strings):
                raise ValueError("X holds other values than 0 and 1")
            return table.bits
        for column in self.encoding_.coded:
            if column.name not in table.columns:
                raise ValueError(f"X has no column {column.name!r}")
        with _as_value_error():
            bits = self.encoding_.encode(table)
        if (bits < 0).any():
            raise ValueError("X has gaps in columns that had none in training; see conditional")
        return bits

    def _returned(self, x: torch.Tensor):
        """Bits (N, L) as X was given."""
        if self._as is torch.Tensor:
            return x.to(self._dtype)
        return x.numpy().astype(self._dtype if isinstance(self._dtype, np.dtype) else np.uint8)

    def _table(self, codes: np.ndarray, u: np.ndarray):
        columns = self.encoding_.texts(codes, u)
        if self.encoding_.form.get("kind") == "array":
            return writing.to_array(columns, self.encoding_)
        return writing.to_frame(columns, self.encoding_)

    def _check_device(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device={self.device!r}: {reason}") from None

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "diffusion_"):
            raise NotFittedError(f"this {type(self).__name__} is not trained yet; call fit first")


class _as_value_error:  # noqa: N801  a context manager
    """A user's mistake is a ValueError in Python's habits."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        if isinstance(error, UserError):
            raise ValueError(str(error)) from None


def _filled(given, drawn):
    """A Series with what was drawn in its gaps, of the type of what was drawn where it can be."""
    filled = drawn.where(given.isna(), given)
    if filled.dtype == drawn.dtype or filled.isna().any():
        return filled
    converted = filled.astype(drawn.dtype)
    return converted if (converted == filled).all() else filled


def _require_bits(config: Config, source: str) -> None:
    if kind_of(config) is not kind_of(Config()):
        raise UserError(
            f"{source}: model.process: {config.model.process}; BernoulliDiffusion is for bits and tables"
        )


def _weights_of(sample_weight, N: int) -> np.ndarray | None:
    """(N,) of rows; None if all count the same. Raises ValueError."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.shape not in ((), (N,)):
        raise ValueError(f"sample_weight has the shape {weights.shape}; expected ({N},)")
    with _as_value_error():
        return checked(np.broadcast_to(weights, N), lambda row: f"sample_weight of row {row}")


def _width(X) -> int:
    shape = getattr(X, "shape", None)
    if shape is None:
        shape = np.asarray(X).shape
    return int(shape[1]) if len(shape) > 1 else 1


def _check_count(name: str, count) -> None:
    """Raises ValueError, or TypeError for what is no whole number."""
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, found {count!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, found {number}")


def _seed(random_state) -> int:
    if random_state is None:
        return 0
    if hasattr(random_state, "randint"):  # a RandomState
        return int(random_state.randint(2**31))
    if hasattr(random_state, "integers"):  # a Generator
        return int(random_state.integers(2**31))
    return int(random_state)
