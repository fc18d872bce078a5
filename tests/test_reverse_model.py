"""The default network: what it finds in the data, and what it says before the first step."""

import math

import pytest
import torch

from bernoulli_diffusion.bits.data import read_bit_strings
from bernoulli_diffusion.bits.measures import independent_bits
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import estimate_bound
from bernoulli_diffusion.reverse_model import ReverseModel
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
    torch.testing.assert_close(model.evidence(x_t, t), expected, rtol=1e-4, atol=1e-4)


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
