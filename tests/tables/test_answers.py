"""Answers to questions by name are those of the model's exact law, which is enumerated here."""

import itertools
import math

import exact
import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import exact_law
from bernoulli_diffusion.tables import asking, generating, planning
from bernoulli_diffusion.tables.table import Table, Values

T, N, Z_LIMIT = 100, 800, 4.5
COLUMNS = {
    "colour": ["red", "blue", "green"],
    "smoker": ["no", "yes"],
    "size": ["1", "2", "3", "4"],
}
HOW_OFTEN = np.array(
    [[[9, 1, 0, 2], [1, 2, 3, 1]], [[1, 1, 4, 0], [0, 6, 1, 1]], [[2, 0, 1, 3], [4, 1, 1, 2]]]
)


def table() -> Table:
    places = itertools.product(*map(range, HOW_OFTEN.shape))
    rows = [place for place in places for _ in range(HOW_OFTEN[place])]
    columns = {
        name: Values.of([texts[row[i]] for row in rows])
        for i, (name, texts) in enumerate(COLUMNS.items())
    }
    return Table(columns, "", {})


@pytest.fixture(scope="module")
def model():
    """An Encoding of 7 bits, the best network for its table, and the exact law by records' codes."""
    data = table()
    encoding = planning.plan(data, np.ones(len(data), bool))
    ideal, x = exact.IdealModel(torch.from_numpy(encoding.encode(data)).float(), T), exact.states(7)
    logits = [ideal(x.float(), torch.full((len(x),), t)) for t in range(1, T + 1)]
    network = exact.TableModel(torch.stack([torch.zeros_like(logits[0]), *logits]))
    diffusion = Diffusion(BernoulliDiffusionProcess(T), network)
    p = exact_law(diffusion, encoding.length).numpy()
    codes = encoding.codes_of_bits(exact.states(encoding.length).byte().numpy())
    law = np.zeros([c.num_codes for c in encoding.coded])
    valid = (codes >= 0).all(axis=1)
    np.add.at(law, tuple(codes[valid].T), p[valid])
    assert law.sum() > 0.97  # the rest are no records; these are drawn again
    return encoding, diffusion, law


def test_the_law_is_that_of_the_table(model):
    encoding, _, law = model
    codes = encoding.codes(table())
    data = np.zeros(law.shape)
    np.add.at(data, tuple(codes.T), 1 / len(codes))
    assert np.abs(law - data).sum() < 0.1


@pytest.mark.parametrize(
    ("asked", "about"),
    [
        ("smoker=yes", "colour"),
        ("size>=2, size<4", "smoker"),
        ("colour=red|green, smoker=no", "size"),
    ],
)
def test_shares_among_the_answers_are_conditional_probabilities(asked, about, model):
    encoding, diffusion, law = model
    question = asking.question(encoding, asking.parse(asked))
    found = generating.answer(encoding, diffusion, question, N, seed=3)
    meant = law.copy()
    for axis, column in enumerate(encoding.coded):
        shape = [1] * law.ndim
        shape[axis] = -1
        meant *= question.allowed[axis, : column.num_codes].reshape(shape)
    axis = [c.name for c in encoding.coded].index(about)
    wanted = meant.sum(axis=tuple({0, 1, 2} - {axis})) / meant.sum()
    values = found.columns[about]
    texts = [t for (t,) in encoding.coded[axis].texts]
    share = np.bincount(values.codes_among(texts), minlength=len(texts)) / N
    # records that share an ancestor are alike, so these count
    error = np.sqrt(wanted * (1 - wanted) * (1 / found.ancestors + 1 / N)) + 0.005
    assert (np.abs(share - wanted) < Z_LIMIT * error).all()
    independent = law.sum(axis=tuple({0, 1, 2} - {axis}))
    assert np.abs(wanted - independent).max() > 0.05  # the question makes a difference
    if "|" not in asked:  # bits say all that is asked
        assert found.log_evidence == pytest.approx(math.log(meant.sum()), abs=0.15)
