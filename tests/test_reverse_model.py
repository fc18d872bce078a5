"""The default network: what it finds in the data, and what it says before the first step."""

import itertools
import math

import numpy as np
import pytest
import torch

from bernoulli_diffusion.bits.data import BitStrings, read_bit_strings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import estimate_bound
from bernoulli_diffusion.reverse_model import ReverseModel, columns_of
from bernoulli_diffusion.sampling import sample
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer, new_results_dir

L, T = 12, 200
Z_LIMIT = 4.5  # two-sided 7e-6; seeds are fixed


def strings(n: int, seed: int = 1) -> torch.Tensor:
    """Bits of many frequencies; bit 1 is mostly that of bit 0, bit 3 the contrary of bit 2."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = (torch.rand(n, L, generator=generator) < torch.linspace(0.05, 0.9, L)).float()
    same, other = torch.rand(2, n, generator=generator) < 0.9
    x_0[:, 1] = torch.where(same, x_0[:, 0], x_0[:, 1])
    x_0[:, 3] = torch.where(other, 1 - x_0[:, 2], x_0[:, 3])
    return x_0


def prepared(n: int = 4000, **options) -> ReverseModel:
    torch.manual_seed(0)
    model = ReverseModel(L, T, **options)
    model.prepare(strings(n))
    return model


def inputs(B: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x_t = torch.randint(2, (B, L), generator=generator).float()
    return x_t, torch.randint(1, T + 1, (B,), generator=generator)


def test_unprepared_and_untrained_it_is_the_uniform_model():
    assert ReverseModel(L, T).eval()(*inputs(5)).abs().max() == 0


def test_prepared_and_untrained_it_is_independent_bits(tmp_path):
    """Its bound is their cross-entropy, which no Monte Carlo is needed for."""
    lines = [[str(int(bit)) for bit in row] for row in strings(4000)]
    (tmp_path / "train.txt").write_text("\n".join("".join(line) for line in lines))
    train = read_bit_strings(tmp_path / "train.txt")
    diffusion = Diffusion(BernoulliDiffusionProcess(T), prepared().eval())
    bound = estimate_bound(diffusion, train, 50_000, seed=3)
    expected = independent_bits(train, train)
    assert abs(bound.bits - expected) < Z_LIMIT * bound.standard_error
    assert bound.standard_error < 0.02 * expected


def test_pairs_that_go_together_are_found_and_the_others_are_not():
    found = {tuple(pair) for pair in prepared().is_pair.nonzero().tolist()}
    assert found == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_of_many_ties_the_strongest_are_taken():
    """All bits go with bit 0, each a little less than the one before it."""
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(5000, 40, generator=generator) < 0.5
    noise = torch.rand(5000, 40, generator=generator)
    x_0 = torch.where(noise < torch.linspace(0.9, 0.1, 40), first[:, :1], first).float()
    model = ReverseModel(40, T)
    model.prepare(x_0)
    count = int(model.is_pair.sum())
    assert 40 * 8 - 1 <= count <= 40 * 8 + 1
    assert model.is_pair[0, 1:12].all()
    assert not model.is_pair[25:, 25:].any()


def test_unknown_bits_are_not_counted():
    x_0 = strings(4000)
    x_0[:3000, 5] = 0.5
    model = ReverseModel(L, T)
    model.prepare(x_0)
    assert model.frequency[5] == pytest.approx((x_0[3000:, 5].sum().item() + 1) / 1002)


def test_a_pair_tells_a_bit_of_the_other_one_and_never_of_itself():
    model = prepared().eval()
    with torch.no_grad():
        model.pairs.copy_(torch.randn(L, L))
    x_t, t = inputs(40)
    logits = model(x_t, t)
    for bit, partner in ((0, 1), (2, 3), (7, None)):
        flipped = x_t.clone()
        flipped[:, bit] = 1 - x_t[:, bit]
        changed = (model(flipped, t) != logits).any(dim=0).nonzero().flatten().tolist()
        assert changed == ([partner] if partner is not None else [])


def test_evidence_is_the_posterior_of_independent_bits():
    model = prepared()
    x_t, t = inputs(60)
    p = model.frequency
    right = (1 + (1 - t / T))[:, None] / 2  # q(x_t = x_0)
    one = p * torch.where(x_t == 1, right, 1 - right)
    zero = (1 - p) * torch.where(x_t == 0, right, 1 - right)
    expected = (one / (one + zero) - p) / (p * (1 - p)).sqrt()
    own = (2 * x_t - 1) * (2 * torch.atanh(1 - t / T))[:, None]
    torch.testing.assert_close(model.evidence(own), expected, rtol=1e-4, atol=1e-4)


def one_hot(n: int, shares: list[float], seed: int) -> torch.Tensor:
    """A column of levels of these shares, a bit each; what is missing to 1 is that of no 1. (n, bits)"""
    generator = torch.Generator().manual_seed(seed)
    rest = max(0.0, 1 - sum(shares))
    level = torch.multinomial(torch.tensor([*shares, rest]), n, True, generator=generator)
    return torch.nn.functional.one_hot(level, len(shares) + 1)[:, : len(shares)].float()


SHARES = [0.6, 0.396, 0.004], [0.3, 0.3, 0.3]  # of a column with a rare level, and of one with none


def columns(n: int = 3000) -> torch.Tensor:
    """A bit, a column of 3, a bit, a column of 3 or none, and 2 bits that are seldom 1. (n, 10)"""
    generator = torch.Generator().manual_seed(5)
    bits = (torch.rand(n, 4, generator=generator) < torch.tensor([0.5, 0.5, 0.02, 0.02])).float()
    found = one_hot(n, SHARES[0], 6), one_hot(n, SHARES[1], 7)
    return torch.cat([bits[:, :1], found[0], bits[:, 1:2], found[1], bits[:, 2:]], dim=1)


def test_columns_are_found_where_chance_would_not_make_them():
    x_0 = columns()
    assert columns_of(x_0).tolist() == [0, 1, 1, 1, 4, 5, 5, 5, 8, 9]
    assert columns_of(x_0[:20]).unique().numel() == 10  # too few to tell
    x_0[0, 1:4] = 1  # a column no more
    assert columns_of(x_0)[1:4].tolist() == [1, 2, 3]
    x_0[0, 1:4] = 0.5  # unknown as a whole, which a column may be
    assert columns_of(x_0)[1:4].tolist() == [1, 1, 1]
    x_0[0, 1] = 0  # but not in part: what is unknown would seem to exclude what is known
    assert columns_of(x_0)[1:4].tolist() == [1, 2, 3]
    assert columns_of(torch.full((9, 3), 0.5)).tolist() == [0, 1, 2]


def test_untrained_it_is_independent_columns():
    x_0 = columns()
    model = ReverseModel(10, T)
    model.prepare(x_0)
    assert not model.is_pair[1:4, 1:4].any()
    diffusion = Diffusion(BernoulliDiffusionProcess(T), model.eval())
    strings = BitStrings.from_bits(x_0.numpy().astype(np.uint8))
    bound = estimate_bound(diffusion, strings, 50_000, seed=3)
    expected = 0.0
    for bits in ([0], [1, 2, 3], [4], [5, 6, 7], [8], [9]):
        _, counts = x_0[:, bits].unique(dim=0, return_counts=True)
        share = counts / len(x_0)
        expected -= (share * share.log2()).sum().item()
    assert abs(bound.bits - expected) < Z_LIMIT * bound.standard_error + 0.01  # its T is finite
    assert bound.standard_error < 0.01 * expected
    samples = torch.cat(list(sample(diffusion, 10, range(2000), seed=4)))
    for column in (samples[:, 1:4], samples[:, 5:8]):  # in one of T steps two may be drawn at once
        assert (column.sum(dim=1) > 1).float().mean() < 0.01


def test_what_a_column_says_is_bayes_rule_over_its_levels():
    """Whatever the rest of the network says, summed over the states in which no two bits are 1."""
    x_0 = columns()[:, 1:4]
    model = ReverseModel(3, T)
    model.prepare(x_0)
    with torch.no_grad():
        torch.nn.init.normal_(model.read_out.bias)
    x_t, t = torch.randint(2, (20, 3)).float(), torch.randint(1, T + 1, (20,))
    odds = (model.log_odds + model.read_out.bias).detach().double()
    right = (1 + (1 - t / T).double()) / 2
    states = torch.eye(4, dtype=torch.float64)[:, :3]  # a level each, and none
    agree = (states[None] == x_t[:, None]).double()  # (20, 4, 3)
    likelihood = (agree * right[:, None, None] + (1 - agree) * (1 - right)[:, None, None]).prod(
        dim=2
    )
    weight = likelihood * (states @ odds).exp()
    one = (weight[:, :, None] * states).sum(dim=1) / weight.sum(dim=1, keepdim=True)
    own = (2 * x_t - 1) * (2 * torch.atanh(1 - t / T))[:, None]
    found = (model.eval()(x_t, t).detach() + own).double().sigmoid()
    torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)


def test_the_confidence_says_who_is_heard():
    """The MLP, a companion, both or none; in training the MLP alone."""
    model = prepared()
    with torch.no_grad():
        torch.nn.init.normal_(model.read_out.weight)
        x_t, t = inputs(20)
        model.dropout.zero_()
        mlp = model(x_t, t)
        model.eval()
        mixture, tree = (companion(x_t, t) for companion in model.companions.values())
        model.confidence.zero_()
        alone = model(x_t, t)
        assert not any(
            x.allclose(y) for x, y in itertools.combinations((mlp, mixture, tree, alone), 2)
        )
        for shares in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.2, 0.1]):
            model.confidence.copy_(torch.tensor(shares))
            parts = zip(shares, (mlp, mixture, tree), strict=True)
            expected = alone + sum(share * (said - alone) for share, said in parts)
            torch.testing.assert_close(model(x_t, t), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.train()(x_t, t), mlp)
            model.eval()


def test_companions_are_not_trained_and_may_be_others():
    model = prepared()
    assert not any(p.requires_grad for p in model.companions.parameters())
    assert len(ReverseModel(1025, T).companions) == len(prepared(companions=[]).companions) == 0
    assert len(prepared(300, companions=["forest"]).companions) == 1
    for wrong in (["tree"], "forest", 3, ["mixture", "mixture"]):
        with pytest.raises(
            ValueError, match="companions: expected a list of different names among mixture"
        ):
            ReverseModel(L, T, companions=wrong)


def test_a_network_that_is_not_believed_says_what_columns_say_by_themselves():
    x_0 = columns()
    torch.manual_seed(1)
    untrained, trained = ReverseModel(10, T), ReverseModel(10, T)
    for model in (untrained, trained):
        model.prepare(x_0)
        model.eval()
    with torch.no_grad():
        torch.nn.init.normal_(trained.read_out.weight)
        x_t, t = x_0[:50], torch.randint(1, T + 1, (50,))
        alone, full = untrained(x_t, t), trained(x_t, t)
        assert not full.allclose(alone)
        for share in (0.0, 0.3):
            trained.confidence[0] = share
            torch.testing.assert_close(trained(x_t, t), alone + share * (full - alone))


def test_dropout_follows_the_number_of_strings_unless_it_is_given():
    shares = [float(prepared(n).dropout) for n in (400, 10_000, 40_000)]
    assert shares[0] == 0.5
    assert shares[1] == pytest.approx(4**0.8 * shares[2], rel=0.1)
    assert float(prepared(400, dropout=0.0).dropout) == 0
    model = prepared(400)
    with torch.no_grad():
        torch.nn.init.normal_(model.read_out.weight)
    x_t, t = inputs(3)
    assert not model(x_t, t).equal(model(x_t, t))
    model.eval()
    assert model(x_t, t).equal(model(x_t, t))


def test_strings_whose_bits_tell_each_other_are_heard_in_full():
    """Ten random bits, written twice, and ten more of which nothing is told."""
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.randint(2, (900, 20), generator=generator).float()
    independent, repeated = ReverseModel(20, T), ReverseModel(20, T)
    independent.prepare(x_0)
    repeated.prepare(torch.cat([x_0[:, :10], x_0[:, :10]], dim=1))
    assert independent.dropout > 0.4
    assert repeated.dropout < 0.01


def test_dropout_keeps_the_mean():
    model = prepared(400, num_blocks=0)
    with torch.no_grad():
        torch.nn.init.normal_(model.read_out.weight)
    x_t, t = inputs(1)
    many = model(x_t.expand(20_000, L), t.expand(20_000)).detach()
    expected = model.eval()(x_t, t).detach()
    error = many.std(dim=0) / math.sqrt(len(many))
    assert ((many.mean(dim=0) - expected[0]).abs() < Z_LIMIT * error).all()


def test_long_strings_have_no_weights_for_pairs():
    model = ReverseModel(1100, T, width=8)
    model.prepare(torch.randint(2, (5, 1100)).float())
    x_t = torch.randint(2, (3, 1100)).float()
    assert model.pairs is None
    assert 0 < model.dropout <= 0.5
    assert model(x_t, torch.tensor([1, 2, T])).shape == (3, 1100)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_bits_and_few_strings(constant):
    for n in (1, 2, 50):
        model = ReverseModel(L, T)
        model.prepare(torch.full((n, L), constant))
        x_t, t = inputs(20)
        logits = model(x_t, t)
        assert logits.isfinite().all()
        assert ((logits > 0) == (constant == 1)).all()
        assert not model.is_pair.any()


def test_a_fresh_run_looks_at_the_data_once_and_a_resumed_one_does_not(tmp_path, monkeypatch):
    (tmp_path / "train.txt").write_text("0011\n0111\n0011\n0001\n")
    (tmp_path / "config.yaml").write_text("model: {T: 10}\ntraining: {epochs: 2}\n")
    folder = read_run_folder(tmp_path)
    first = Trainer(folder, torch.device("cpu"), quiet=True)
    for diffusion in (first.loop.diffusion, first.averaged):
        frequency = diffusion.reverse_model.frequency
        torch.testing.assert_close(frequency, torch.tensor([1.0, 2.0, 4.0, 5.0]) / 6)
    first.results_dir = new_results_dir(tmp_path)
    first.save()
    [path] = (first.results_dir / "checkpoints").iterdir()
    again = Trainer(folder, torch.device("cpu"), quiet=True, fresh=False)
    model, expected = again.loop.diffusion.reverse_model, first.loop.diffusion.reverse_model
    assert model.frequency.tolist() == [0.5] * 4
    again.resume(path, checkpoint.load(path))
    assert model.frequency.equal(expected.frequency)
    assert model.dropout == expected.dropout > 0
