"""How like the data synthetic records are, and whether they tell about single training records.

Everything is measured on codes (N, G): a column's values as the model knows them. Where a number
depends on how many rows there are, the same is measured of held-out rows: that is what good looks like.
"""

from typing import NamedTuple

import numpy as np

from .columns import Column
from .encoding import Encoding

MOST = 4000  # rows compared with one another
BLOCK = 64  # of them at a time
FOLDS = 5  # of the rows that trees are to tell apart
BARS = 24  # of a column's picture; more codes are drawn as groups of neighbours


class Share(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


def frequencies(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """(num_codes,) the share of each code of a column. codes: (N,)."""
    return np.bincount(codes, minlength=num_codes) / max(1, len(codes))


def column_distances(encoding: Encoding, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(G,) the total variation distance of each column's frequencies; 0: the same, 1: nothing shared."""
    found = []
    for g, column in enumerate(encoding.coded):
        p, q = (frequencies(codes[:, g], column.num_codes) for codes in (one, other))
        found.append(np.abs(p - q).sum() / 2)
    return np.array(found)


def associations(codes: np.ndarray) -> np.ndarray:
    """(G, G) Cramer's V of every two columns, corrected for chance (Bergsma 2013): 0 none, 1 all."""
    N, G = codes.shape
    free = max(1, N - 1)
    found = np.eye(G)
    values = [np.unique(codes[:, g], return_inverse=True)[1].reshape(-1) for g in range(G)]
    counts = [np.bincount(v) for v in values]
    size = np.array([len(c) for c in counts])
    first = size.cumsum() - size  # of each column's values, those of all columns in a row
    place = np.stack(values, axis=1) + first  # (N, G)
    for a in range(1, G):  # with all columns before it at once
        r, k, K = size[a], size[:a], first[a]
        joint = np.bincount((values[a][:, None] * K + place[:, :a]).reshape(-1), minlength=r * K)
        expected = counts[a][:, None] * np.concatenate(counts[:a]) / N  # (r, K)
        terms = ((joint.reshape(r, K) - expected) ** 2 / expected).sum(axis=0)
        phi = np.add.reduceat(terms, first[:a]) / N - (r - 1) * (k - 1) / free
        least = np.minimum(r - (r - 1) ** 2 / free, k - (k - 1) ** 2 / free) - 1
        can_be = least > 0  # of a constant it is 0
        v = (np.maximum(phi, 0) / np.where(can_be, least, 1)) ** 0.5
        found[a, :a] = found[:a, a] = np.where(can_be, np.minimum(v, 1), 0)
    return found


def copies(codes: np.ndarray, train: np.ndarray) -> Share:
    """The share of records that stand in train, value for value."""
    known = {row.tobytes() for row in np.ascontiguousarray(train)}
    found = np.array([row.tobytes() in known for row in np.ascontiguousarray(codes)])
    p = float(found.mean())
    return Share(p, (p * (1 - p) / len(found)) ** 0.5)


def closest(codes: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """(n,) in how many columns each record differs from the training record most like it."""
    r = np.random.default_rng(seed)
    codes, train = (x[r.permutation(len(x))[:MOST]].astype(np.int16) for x in (codes, train))
    train = np.asfortranarray(train)
    parts = []
    for first in range(0, len(codes), BLOCK):
        rows = codes[first : first + BLOCK]
        differ = np.zeros((len(rows), len(train)), np.int16)
        for begin in range(0, codes.shape[1], 255):  # so many fit into a byte, which is fast
            few = np.zeros(differ.shape, np.uint8)
            for g in range(begin, min(begin + 255, codes.shape[1])):
                few += (rows[:, g, None] != train[:, g]).view(np.uint8)
            differ += few
        parts.append(differ.min(axis=1))
    return np.concatenate(parts)


def two_sample(real: np.ndarray, synthetic: np.ndarray, seed: int) -> Share | None:
    """The AUC with which boosted trees tell real from synthetic records, cross-validated; 0.5 is best.

    Its error is that of Hanley & McNeil 1982. None without scikit-learn, or with less than FOLDS rows.
    """
    if min(len(real), len(synthetic)) < FOLDS:
        return None
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    except ImportError:
        return None
    r = np.random.default_rng(seed)
    n = min(len(real), len(synthetic), MOST)
    real, synthetic = (x[r.permutation(len(x))[:n]] for x in (real, synthetic))
    X, y = np.concatenate([real, synthetic]).astype(float), np.repeat([1, 0], n)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(random_state=seed)
    p = cross_val_predict(trees, X, y, cv=folds, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(y, p))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = ((auc * (1 - auc) + (n - 1) * (q1 + q2 - 2 * auc**2)) / n**2) ** 0.5
    return Share(auc, error)


def membership(train_bits: np.ndarray, val_bits: np.ndarray) -> Share:
    """P(a training record costs less than a held-out one): 0.5 if the model tells no members.

    The AUC of the bound on single records, and its error if they were alike.
    """
    n, m = len(train_bits), len(val_bits)
    order = np.concatenate([train_bits, val_bits]).argsort(kind="stable").argsort(kind="stable")
    wins = (order[n:] + 1).sum() - m * (m + 1) / 2
    return Share(float(wins / (n * m)), ((n + m + 1) / (12 * n * m)) ** 0.5)


def figure(encoding: Encoding, train: np.ndarray, synthetic: np.ndarray):
    """Each column's frequencies: training rows filled, synthetic ones as a line."""
    from matplotlib.figure import Figure

    across = 4
    down = -(-len(encoding.coded) // across)
    drawing = Figure(figsize=(3 * across, 1.9 * down), layout="constrained", dpi=90)
    axes = drawing.subplots(down, across, squeeze=False).flatten()
    for g, (column, ax) in enumerate(zip(encoding.coded, axes, strict=False)):
        k = column.num_codes
        labels = [_label(column, c) for c in range(len(column.texts))]
        labels += ["none"] * column.has_missing_code
        group = np.arange(k) * min(k, BARS) // k  # neighbours share a bar
        shares = [np.bincount(group, frequencies(c[:, g], k)) for c in (train, synthetic)]
        x = np.arange(len(shares[0]))
        ax.bar(x, shares[0], width=1.0, color="#c3c8cc")
        ax.step(
            np.append(x - 0.5, x[-1] + 0.5),
            np.append(shares[1], shares[1][-1]),
            where="post",
            color="#d55e00",
        )
        ax.set_title(column.name[:30].replace("$", r"\$"), fontsize=9)
        first = [int(np.flatnonzero(group == b)[0]) for b in x]
        shown = x if len(x) <= 6 else x[:: -(-len(x) // 5)]
        ax.set_xticks(shown, [labels[first[b]][:8].replace("$", r"\$") for b in shown], fontsize=7)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    for ax in axes[len(encoding.coded) :]:
        ax.set_visible(False)
    return drawing


def _label(column: Column, code: int) -> str:
    """A code's first text, or its number in short."""
    text = column.texts[code][0]
    is_long_number = len(text) > 6 and column.type in ("number", "whole number")
    return f"{column.numbers[code]:.3g}" if is_long_number else text


def association_figure(encoding: Encoding, data: np.ndarray, synthetic: np.ndarray):
    """Two matrices of associations side by side."""
    from matplotlib.figure import Figure

    names = [c.name[:14].replace("$", r"\$") for c in encoding.coded]
    drawing = Figure(figsize=(11, 5.2), layout="constrained", dpi=90)
    for ax, matrix, title in zip(
        drawing.subplots(1, 2), (data, synthetic), ("training rows", "synthetic rows"), strict=True
    ):
        image = ax.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        ax.set_title(title, fontsize=10)
        size = 8 if len(names) <= 20 else 5
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        ax.set_yticks(range(len(names)), names, fontsize=size)
    drawing.colorbar(image, ax=drawing.axes, shrink=0.7, label="Cramer's V")
    return drawing
