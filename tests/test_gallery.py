"""The networks of docs/reverse_models and bernoulli_diffusion/networks.

What is asked of every network, and what each one promises.
"""

import importlib.util
import itertools
import math
import shutil
import sys
from pathlib import Path

import exact
import pytest
import torch
from processes import ROOT
from torch.nn.functional import logsigmoid

from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.likelihood import HollowDiffusion, estimate_bound
from bernoulli_diffusion.numbers.process import GaussianDiffusionProcess
from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import checkpoint
from bernoulli_diffusion.training.network import Source, build, load_class, try_out
from bernoulli_diffusion.training.run_folder import read_run_folder
from bernoulli_diffusion.training.trainer import Trainer, new_results_dir

GALLERY = ROOT / "docs" / "reverse_models"
PACKAGED = ROOT / "bernoulli_diffusion" / "networks"
IN_GALLERY = sorted(p.stem for p in GALLERY.glob("*.py") if p.stem != "table")
IN_PACKAGE = sorted(p.stem for p in PACKAGED.glob("*.py") if p.stem != "__init__")
NAMES = IN_GALLERY + IN_PACKAGE
HOLLOW = ("automaton", "forest", "hidden_tree", "hollow", "mixture")
Z_LIMIT = 4.5  # as in test_likelihood.py


def path_of(name: str) -> Path:
    return (PACKAGED if name in IN_PACKAGE else GALLERY) / f"{name}.py"


def source(name: str) -> Source:
    return Source(path_of(name), path_of(name).read_text(encoding="utf-8"))


def network(name: str, L: int, T: int, seed: int = 0, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(source(name), L, T, options)


def loud(model: torch.nn.Module) -> torch.nn.Module:
    """With random weights everywhere: most networks start with a read-out of zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
        if hasattr(model, "leaf"):  # a forest's trees, which prepare() alone grows
            model.leaf.copy_(torch.randn(model.leaf.shape).log_softmax(dim=1))
            L = len(model.bits)
            model.parent.copy_(
                (torch.rand(model.parent.shape) * torch.arange(L)).int()
            )  # any before it
            model.one.uniform_(0.1, 0.9)
            model.set_parts()
    return model.eval()


def inputs(B: int, L: int, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x_t = torch.randint(2, (B, L), generator=generator).float()
    return x_t, torch.randint(1, T + 1, (B,), generator=generator)


# ----------------------------------------------------------------------------- all of them


def test_the_gallery_is_complete():
    assert IN_GALLERY == [
        "attention", "automaton", "convolution", "hollow", "mirrored_mlp", "mlp_2015", "unet",
    ]  # fmt: skip
    assert IN_PACKAGE == ["columns", "forest", "hidden_tree", "mixture", "tree_and_mlp"]
    page = (GALLERY / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"{name}.py)" in page
        doc = load_class(source(name)).__module__
        doc = sys.modules[doc].__doc__
        for word in ("\nIdea: ", "\nSource: ", "\nHelps ", "\nCost: "):
            assert word in doc, (name, word)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("L", "T"), [(4, 1), (5, 2000), (64, 2000)])
def test_a_file_passes_what_is_tried_before_training(name, L, T):
    model = network(name, L, T)
    if (name, T) != ("mirrored_mlp", 1):  # x_T says nothing, and all bits are 1 as often as 0
        try_out(source(name), model, L, T)
    x_t, t = inputs(7, L, T)
    logits = model(x_t, t)
    assert logits.shape == (7, L)
    assert logits.dtype == torch.float32
    assert logits.abs().max() < 1e-5  # the uniform model: training starts at L bits


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_influence_each_other(name):
    model = loud(network(name, 9, 100))
    x_t, t = inputs(6, 9, 100)
    together = model(x_t, t)
    assert together.std(dim=0).max() > 0.01
    for order in (torch.arange(6).flip(0), torch.tensor([3])):
        torch.testing.assert_close(
            model(x_t[order], t[order]), together[order], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_parameters(name):
    T = 3
    model = loud(network(name, 8, T)).train()
    x_0, _ = inputs(64, 8, T)
    torch.manual_seed(3)
    Diffusion(BernoulliDiffusionProcess(T), model).loss(x_0, 4).backward()
    # what is added to x_t and to its mirror image alike cancels
    idle = ("norm.bias", "read_out.bias") if name == "mirrored_mlp" else ()
    for key, parameter in model.named_parameters():
        if key.startswith(("base.", "companions.")):
            assert not parameter.requires_grad  # prepare() alone sets it
            continue
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() == (key not in idle), key


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_network(name):
    one, again, other = (network(name, 8, 5, seed).state_dict() for seed in (4, 4, 5))
    assert all(one[key].equal(again[key]) for key in one)
    if name != "forest":  # which begins without trees, and so without chance
        assert any(not one[key].equal(other[key]) for key in one)


def run_folder(path: Path, name: str) -> Path:
    """A run folder with a little data and a copy of this network."""
    (path / "train.txt").write_text("010010\n100100\n001001\n")
    shutil.copy(path_of(name), path / "reverse_model.py")
    settings = ["model: {T: 20}", "data: {batch_size: 8, shape: [2, 3]}"]
    settings.append(
        "training: {epochs: 6, lr: 0.02, num_val_samples: 8, num_bound_draws: 16,"
        " validate_every_n_epochs: 6}"
    )
    (path / "config.yaml").write_text("\n".join(settings))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_in_a_run_folder_trains_and_comes_back_from_its_checkpoint(tmp_path, name):
    """Resumed after 3 of 6 steps it becomes, bit for bit, what it becomes without."""
    folder = read_run_folder(run_folder(tmp_path, name))
    whole, rest = (Trainer(folder, torch.device("cpu"), quiet=True) for _ in range(2))
    whole.results_dir = new_results_dir(tmp_path)
    for _ in range(3):
        whole.loop.train_step()
    whole.save()
    (path,) = (whole.results_dir / "checkpoints").iterdir()
    rest.resume(path, checkpoint.load(path))
    for trainer in (whole, rest):
        for _ in range(3):
            trainer.loop.train_step()
    x_t, t = inputs(9, 6, 20)
    for trained in ("diffusion", "averaged"):
        models = [getattr(each.loop, trained).reverse_model.eval() for each in (whole, rest)]
        expected, found = (model(x_t, t) for model in models)
        assert expected.equal(found)
        assert expected.abs().max() > 0


# ----------------------------------------------------------------------------- each one's promise


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in HOLLOW), ("hollow", {"num_layers": 2})]
)
def test_a_hollow_networks_logit_never_sees_its_own_bit(name, options):
    L, T = 11, 50
    model = loud(network(name, L, T, **options))
    x_t, t = inputs(L, L, T)
    flipped = (x_t - torch.eye(L)).abs()  # row i with bit i the other way
    before, after = model(x_t, t), model(flipped, t)
    if name in LAWS:  # which take a bit's news off a sum again
        torch.testing.assert_close(before.diagonal(), after.diagonal(), rtol=1e-5, atol=1e-6)
    else:
        assert before.diagonal().equal(after.diagonal())  # the same to the last digit
    changed = (before != after).float().mean(dim=0)
    assert (changed > 0.5).all()  # and every other bit counts, for most of the rows


def test_the_others_do_see_it():
    """The test above can fail."""
    for name in set(NAMES) - set(HOLLOW):
        model = loud(network(name, 8, 50))
        x_t, t = inputs(8, 8, 50)
        flipped = (x_t - torch.eye(8)).abs()
        assert not model(x_t, t).diagonal().equal(model(flipped, t).diagonal())


@pytest.mark.parametrize("name", HOLLOW)
def test_averaging_over_each_bit_keeps_the_bound_and_lowers_its_noise(name):
    """The mean over all noise is the same to rounding, at every t; the variance is smaller."""
    L, T = 5, 6
    model = loud(network(name, L, T, **SMALL.get(name, {})))
    process = BernoulliDiffusionProcess(T)
    plain, hollow = Diffusion(process, model), HollowDiffusion(process, model)
    x_t = exact.states(L).float()  # every noise: u below 1/2 keeps or not, see sample_x_t
    x_0 = x_t[13].expand_as(x_t)
    spread = torch.zeros(2)  # the variance over all noise, of plain and hollow terms
    for step in range(1, T + 1):
        t = torch.full((2**L,), step)
        keep = (1 + process.alpha[step].item()) / 2
        u = torch.where(x_t == x_0, keep / 2, (1 + keep) / 2)
        assert process.sample_x_t(x_0, t, u).equal(x_t)
        probability = torch.where(x_t == x_0, keep, 1 - keep).prod(dim=1)
        terms = [d.bound_term(x_0, t, u) for d in (plain, hollow)]
        means = [(probability * term).sum().item() for term in terms]
        assert means[0] == pytest.approx(means[1], rel=1e-5)
        squares = ((term - mean) ** 2 for term, mean in zip(terms, means, strict=True))
        spread += torch.stack([(probability * square).sum() for square in squares])
    strings = BitStrings.from_bits(x_t[:7].byte().numpy())
    a, b = (estimate_bound(d, strings, 2000, seed=5) for d in (plain, hollow))
    assert abs(a.bits - b.bits) < Z_LIMIT * math.hypot(a.monte_carlo_error, b.monte_carlo_error)
    assert spread[1] < 0.65 * spread[0]


def test_each_row_has_the_read_out_of_its_own_time():
    model = network("mlp_2015", 3, 4)
    with torch.no_grad():
        model.read_outs[:, -1] = torch.arange(1.0, 5.0)[:, None]  # biases that tell the time
    t = torch.tensor([4, 1, 3, 3, 2])
    assert model(torch.zeros(5, 3), t).equal(t.float()[:, None].expand(5, 3))


def test_mirrored_network_is_mirrored():
    model = loud(network("mirrored_mlp", 6, 20, width=16))
    x_t, t = inputs(5, 6, 20)
    torch.testing.assert_close(model(1 - x_t, t), -model(x_t, t))


def test_convolution_takes_the_shape_it_is_given():
    with pytest.raises(Exception, match=r"shape: \[2, 4\] has not 6 cells"):
        network("convolution", 6, 5, shape=[2, 4])
    model = loud(network("convolution", 24, 5, shape=[4, 6], num_blocks=1, periodic=True))
    model.place.data.zero_()
    x_t, t = inputs(3, 24, 5)

    def rolled(x):
        return x.view(3, 4, 6).roll((1, 2), (1, 2)).flatten(1)

    torch.testing.assert_close(model(rolled(x_t), t), rolled(model(x_t, t)))
    model = network("convolution", 24, 5, shape=[4, 6], num_blocks=1)
    model = loud(model)
    model.place.data.zero_()
    assert not torch.allclose(model(rolled(x_t), t), rolled(model(x_t, t)), atol=1e-3)


def test_data_shape_is_the_networks_shape_unless_it_has_its_own(tmp_path):
    folder = run_folder(tmp_path, "unet")  # data.shape is [2, 3]
    trainer = Trainer(read_run_folder(folder), torch.device("cpu"), quiet=True)
    assert trainer.loop.diffusion.reverse_model.shape == [2, 3, 1]
    own = read_run_folder(folder, ["model.reverse_model.shape=[3, 2]"])
    trainer = Trainer(own, torch.device("cpu"), quiet=True)
    assert trainer.loop.diffusion.reverse_model.shape == [3, 2, 1]
    assert trainer.config.data.shape == [2, 3]


def test_unet_says_what_does_not_fit():
    for options, message in (
        ({"shape": [2, 4]}, r"shape: \[2, 4\] has not 6 cells"),
        ({"shape": [2, 3], "patch": 2}, r"shape: \[2, 3\] cannot be cut into patches of 2 x 2"),
        ({"width": 6}, "width 6 is no multiple of 4"),
    ):
        with pytest.raises(UserError, match=message):
            network("unet", 6, 5, **options)


def test_unet_sees_the_channels_of_a_pixel_beside_each_other():
    """Without blocks a bit is told by the 5 x 5 pixels around it, all three colours of each."""
    model = loud(network("unet", 7 * 7 * 3, 5, shape=[7, 7, 3], depth=0, levels=1))
    model.attention, model.norm = torch.nn.Identity(), torch.nn.Identity()
    x_t, t = inputs(1, 7 * 7 * 3, 5)
    x_t.requires_grad_()
    model(x_t, t).view(7, 7, 3)[3, 2, 1].backward()
    seen = x_t.grad.view(7, 7, 3).abs() > 0
    assert seen[1:6, 0:5].all()
    assert seen.sum() == 5 * 5 * 3


def test_unet_keeps_pixels_in_place_through_patches():
    model = loud(network("unet", 4 * 6 * 3, 5, shape=[4, 6, 3], patch=2, depth=0, levels=1))
    model.attention, model.norm = torch.nn.Identity(), torch.nn.Identity()
    with torch.no_grad():  # both convolutions see their own patch alone, and know it again
        for layer in (model.read_in, model.read_out):
            layer.weight.zero_()
        for k in range(12):
            model.read_in.weight[k, k, 1, 1] = model.read_out.weight[k, k, 1, 1] = 1
        for rest in (model.read_in.bias, model.place, model.bias, *model.scale.parameters()):
            rest.zero_()
    x_t, t = inputs(1, 4 * 6 * 3, 5)
    logits = model(x_t, t)
    assert ((logits > 0) == (x_t == 1)).all()
    flipped = x_t.clone()
    flipped[0, 29] = 1 - x_t[0, 29]
    assert (model(flipped, t) != logits).nonzero().tolist() == [[0, 29]]


@pytest.mark.parametrize("variance", ["beta", "learned"])
def test_unet_of_numbers_begins_as_if_they_were_standard_normal(variance):
    L, T, learned = 4 * 4 * 3, 50, variance == "learned"
    process = GaussianDiffusionProcess(T, "cpu", torch.zeros(L), torch.ones(L), variance=variance)
    options = {"shape": [4, 4, 3], "is_real": True} | ({"learn_variance": True} if learned else {})
    model = network("unet", L, T, **options)
    try_out(source("unet"), model, L, T, process)
    t = torch.tensor([1, 25, 50])
    x_t = torch.randn(3, L, generator=torch.Generator().manual_seed(4))
    expected = (t / T).sqrt()[:, None] * x_t
    if learned:
        expected = torch.cat([expected, torch.zeros_like(x_t)], dim=1)
    torch.testing.assert_close(model(x_t, t), expected)
    before = model.bias.clone()
    model.prepare(x_t)  # nothing to know of numbers, which are standardised
    assert model.bias.equal(before)


def test_unet_begins_at_the_frequencies_of_the_data():
    x_0 = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
    model = network("unet", 4, 5)
    model.prepare(x_0)
    share = torch.sigmoid(model(x_0[:1].float(), torch.tensor([5])))
    torch.testing.assert_close(share, torch.tensor([[0.25, 0.75, 0.5, 0.25]]))


# ----------------------------------------------------------------------------- the automata


def remainder_automaton(L: int, T: int, divisor: int) -> torch.nn.Module:
    """One automaton that is set to accept the multiples of divisor."""
    model = network("automaton", L, T, num_states=divisor, num_automata=1)
    with torch.no_grad():
        state, bit = torch.arange(divisor), torch.arange(2)[:, None]
        model.move.fill_(-40.0)
        model.move[0, bit, state, (2 * state + bit) % divisor] = 40.0
        model.end.copy_(torch.tensor([40.0] + [-40.0] * (divisor - 1)))
    return model


@pytest.mark.parametrize("divisor", [2, 3, 5])
def test_the_right_automaton_gives_the_exact_posterior(divisor):
    """Against the sum over all strings, at every time from the nearly clean to the wholly erased."""
    L, T = 8, 40
    every = exact.states(L)
    ideal = exact.IdealModel(every[::divisor], T)
    model = remainder_automaton(L, T, divisor)
    for step in (2, 10, 39, 40):
        t = torch.full((2**L,), step)
        expected = ideal(every.float(), t)
        found = model(every.float(), t)
        torch.testing.assert_close(
            found.clamp(-15, 15), expected.clamp(-15, 15), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("L", [1, 64, 400])
def test_long_strings_stay_finite(L):
    model = loud(network("automaton", L, 10, num_automata=3))
    logits = model(*inputs(4, L, 10))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_crowd_of_automata_finds_the_multiples_of_5():
    """20-bit multiples of 5, of which everything short of the whole string looks random."""
    L, T = 12, 200
    numbers = 5 * torch.randint(2**L // 5, (12_800,), generator=torch.Generator().manual_seed(6))
    x_0 = ((numbers[:, None] >> torch.arange(L - 1, -1, -1)) & 1).float()
    model = network("automaton", L, T, seed=0)
    diffusion = Diffusion(BernoulliDiffusionProcess(T), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    torch.manual_seed(7)
    for batch in x_0.split(160):
        loss = diffusion.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    floor = math.log2(2**L / 5)
    strings = BitStrings.from_bits(x_0[:2000].byte().numpy())
    bound = estimate_bound(HollowDiffusion(diffusion.process, model), strings, 8000, seed=8)
    assert floor - 4 * bound.standard_error < bound.bits < floor + 0.5  # chance: L = floor + 2.32


# ----------------------------------------------------------------------------- trees and mixtures


def log_law_of_tree(model: torch.nn.Module) -> torch.Tensor:
    """(2^L,) log P(x) of a hidden tree, summed over all states of all nodes one after the other."""
    scale = sys.modules[type(model).__module__].STEP
    L, K = model.bit.shape
    x, order, parent = exact.states(L).long(), model.order.tolist(), model.parent.tolist()
    root, move = (scale * p.double() for p in (model.root, model.move))
    total = torch.zeros(2**L, dtype=torch.float64)
    for z in itertools.product(range(K), repeat=L):
        p = root.softmax(0)[z[0]]
        for node in range(1, L):
            p = p * move.softmax(2)[node, z[parent[node]], z[node]]
        bits = torch.sigmoid(scale * model.bit.double()[range(L), z])  # by node
        p = p * torch.where(x[:, order] == 1, bits, 1 - bits).prod(dim=1)
        total += p
    return total.log()


def log_law_of_mixture(model: torch.nn.Module) -> torch.Tensor:
    scale = sys.modules[type(model).__module__].STEP
    p = torch.sigmoid(scale * model.bit.double())[:, None]  # (K, 1, L)
    each = torch.where(exact.states(p.shape[2]) == 1, p, 1 - p).prod(dim=2)  # (K, 2^L)
    return ((scale * model.share.double()).softmax(0) @ each).log()


def log_law_of_forest(model: torch.nn.Module) -> torch.Tensor:
    """(2^L,) log P(x) of a forest, leaf after leaf and bit after bit."""
    scale = sys.modules[type(model).__module__].STEP
    x = exact.states(len(model.bits)).long()
    *shares, rest = (scale * model.share.double()).softmax(0)
    total = rest * bernoulli(torch.sigmoid(scale * model.bits.double()), x)
    leaves = (torch.stack(shares)[:, None] * model.leaf.double().exp()).flatten()
    for k, leaf in enumerate(leaves):
        up = model.parent[k].long()
        value = torch.where(up == torch.arange(len(up)), 0, x[:, up])  # (2^L, L); a root has none
        total += leaf * bernoulli(model.one[:, k].double()[value, torch.arange(len(up))], x)
    return total.log()


def bernoulli(one: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The probability of each string of x, (n, L), by those of a 1."""
    return torch.where(x == 1, one, 1 - one).prod(dim=1)


LAWS = {
    "forest": log_law_of_forest,
    "hidden_tree": log_law_of_tree,
    "mixture": log_law_of_mixture,
}
SMALL = {
    "forest": {"num_trees": 2, "num_leaves": 4},
    "hidden_tree": {"num_states": 2},
    "mixture": {"num_components": 3},
}


def chain_strings(n: int, L: int) -> torch.Tensor:
    """Bits that differ from the one before with probability 0.1; written in a scrambled order."""
    generator = torch.Generator().manual_seed(9)
    flips = torch.rand(n, L, generator=generator) < 0.1
    flips[:, 0] = torch.rand(n, generator=generator) < 0.4
    return (flips.cumsum(dim=1) % 2).float()[:, scramble(L)]


def partly_unknown(x_0: torch.Tensor, share: float) -> torch.Tensor:
    is_unknown = torch.rand(x_0.shape, generator=torch.Generator().manual_seed(13)) < share
    return x_0.masked_fill(is_unknown, 0.5)


def scramble(L: int) -> torch.Tensor:
    return torch.arange(L) * 3 % L  # L must not be a multiple of 3


@torch.no_grad()
@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("name", LAWS)
def test_trees_and_mixtures_give_the_exact_posterior(name, is_prepared):
    """Against the sum over all strings of their own law, at every kind of time."""
    L, T = 7, 40
    model = network(name, L, T, **SMALL[name])
    if is_prepared:
        model.prepare(chain_strings(500, L))
    else:
        loud(model)
    model.eval()
    x, log_p = exact.states(L), LAWS[name](model)
    assert log_p.exp().sum().item() == pytest.approx(1)
    for step in (1, 2, 10, 39, 40):
        alpha = exact.alphas(T)[step]
        agree = x[:, None] == x[None]  # (x_t, x_0, L)
        log_q = torch.where(agree, ((1 + alpha) / 2).log(), ((1 - alpha) / 2).log())
        others = log_q.sum(dim=2, keepdim=True) - log_q + log_p[None, :, None]
        one = others.masked_fill(x[None] == 0, -math.inf).logsumexp(dim=1)
        zero = others.masked_fill(x[None] == 1, -math.inf).logsumexp(dim=1)
        for t in (
            torch.full((2**L,), step),
            torch.tensor(step).expand(2**L),
        ):  # as samplers have it
            found = model(x.float(), t)
            torch.testing.assert_close(found.double(), one - zero, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_prepare_finds_the_tree_and_its_probabilities(unknown):
    """A chain of bits in scrambled order: who is joined to whom, and the bits that are left.

    A share of the bits may be unknown.
    """
    L, T = 8, 500
    model = network("hidden_tree", L, T, num_states=4)
    model.prepare(partly_unknown(chain_strings(4000, L), unknown))
    place = scramble(L).tolist()  # of each bit in the chain
    order, parent = model.order.tolist(), model.parent.tolist()
    joined = {frozenset((place[order[n]], place[order[parent[n]]])) for n in range(1, L)}
    assert joined == {frozenset((i, i + 1)) for i in range(L - 1)}
    assert len(model.levels) == L // 2 + 1  # the root is in the middle
    entropy = sum(-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in [0.4] + [0.1] * (L - 1))
    fresh = BitStrings.from_bits(chain_strings(8000, L)[4000:].byte().numpy())
    diffusion = HollowDiffusion(BernoulliDiffusionProcess(T), model.eval())
    bound = estimate_bound(diffusion, fresh, 16_000, seed=10)
    assert bound.bits == pytest.approx(entropy, abs=0.06 + Z_LIMIT * bound.standard_error)
    assert bound.bits < L - 3


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_prepare_finds_the_kinds_of_a_mixture(unknown):
    L, T, n = 12, 500, 6000
    generator = torch.Generator().manual_seed(11)
    kind = torch.randint(2, (n, 1), generator=generator)
    x_0 = ((torch.rand(n, L, generator=generator) < 0.05).long() ^ kind).float()
    model = network("mixture", L, T, num_components=4)
    model.prepare(partly_unknown(x_0[:3000], unknown))
    entropy = 1 - L * (0.05 * math.log2(0.05) + 0.95 * math.log2(0.95))
    diffusion = HollowDiffusion(BernoulliDiffusionProcess(T), model.eval())
    strings = BitStrings.from_bits(x_0[3000:].byte().numpy())
    bound = estimate_bound(diffusion, strings, 12_000, seed=12)
    assert bound.bits == pytest.approx(entropy, abs=0.06 + Z_LIMIT * bound.standard_error)


def test_a_forest_asks_for_what_decides():
    """Bit 0 decides whether pairs of bits are equal or opposite: no two bits tell of each other."""
    L, T, n = 9, 500, 4000
    generator = torch.Generator().manual_seed(15)
    switch, first = (torch.randint(2, (2 * n, k), generator=generator) for k in (1, 4))
    second = first ^ switch ^ (torch.rand(2 * n, 4, generator=generator) < 0.05).long()
    x_0 = torch.cat([switch, first, second], dim=1).float()
    model = network("forest", L, T, num_trees=4, num_leaves=16)
    model.prepare(x_0[:n])
    entropy = 5 - 4 * (0.05 * math.log2(0.05) + 0.95 * math.log2(0.95))  # 6.1 bits
    diffusion = HollowDiffusion(BernoulliDiffusionProcess(T), model.eval())
    bound = estimate_bound(diffusion, BitStrings.from_bits(x_0[n:].byte().numpy()), 12_000, seed=16)
    error = Z_LIMIT * bound.standard_error
    assert entropy - error < bound.bits < entropy + 0.5 + error  # without questions 9


def test_a_forest_has_as_many_leaves_as_the_strings_ask_for():
    module = sys.modules[type(network("forest", 10, 50)).__module__]
    torch.manual_seed(18)
    independent = (torch.rand(2000, 8) < 0.5).float()
    tables = torch.randint(2, (16, 8)).float()  # four bits look up eight others: 16 leaves know all
    four = torch.randint(2, (2000, 4))
    looked_up = torch.cat([four.float(), tables[four @ torch.tensor([8, 4, 2, 1])]], dim=1)
    noisy = torch.where(torch.rand(looked_up.shape) < 0.02, 1 - looked_up, looked_up)
    assert module.choose(independent, 256)[0] == module.LEAVES[0]
    assert module.choose(noisy, 256)[0] >= 16
    assert module.choose(noisy, 10)[0] == 10
    assert module.choose(noisy[:5], 256) == (1, max(module.STRINGS))


def test_spanning_trees_have_the_largest_weight():
    """All trees at once, and one after the other; a node without ties is a root of its own."""
    forest, tree = (
        sys.modules[type(network(name, 10, 50)).__module__] for name in ("forest", "hidden_tree")
    )
    weight = torch.rand(5, 9, 9, generator=torch.Generator().manual_seed(19))
    weight = (weight + weight.transpose(1, 2)).masked_fill(torch.eye(9, dtype=torch.bool), 0)
    weight[4, 3] = weight[4, :, 3] = 0
    parents = forest.spanning_trees(weight)
    each = torch.arange(9)
    for k, (w, parent) in enumerate(zip(weight, parents, strict=True)):
        neighbours = tree.spanning_tree(w)
        best = sum(w[node, other] for node in range(9) for other in neighbours[node]) / 2
        assert w[each, parent].sum().item() == pytest.approx(best.item())
        assert (parent == each).sum() == (2 if k == 4 else 1)
    forest.depths(parents)  # raises if one is no tree


def test_the_forests_questions_leave_enough_strings_in_each_leaf():
    x_0 = chain_strings(600, 10)
    torch.manual_seed(17)
    module = sys.modules[type(network("forest", 10, 50)).__module__]
    leaves = module.grow(x_0, 256)
    assert 8 < len(leaves) < 600 // module.LEAST_LEAF
    rows = torch.cat([rows for rows, _, _ in leaves])
    assert rows.sort().values.equal(torch.arange(600))  # each string is in one leaf
    for rows, asked, _ in leaves:
        assert len(rows) >= module.LEAST_LEAF
        for bit, value in asked.items():
            assert (x_0[rows, bit] == value).all()
    total = torch.stack([log_share for _, _, log_share in leaves]).exp().sum()
    assert total == pytest.approx(1, abs=1e-5)
    assert len(module.grow(x_0, 5)) == 5


def test_a_mixture_has_as_many_kinds_as_the_strings_ask_for():
    model = network("mixture", 12, 50)
    module = sys.modules[type(model).__module__]
    generator = torch.Generator().manual_seed(20)
    independent = (torch.rand(1000, 12, generator=generator) < 0.3).float()
    kinds = torch.randint(2, (100, 12), generator=generator).float()  # each is a string
    some = kinds[torch.randint(100, (3000,), generator=generator)]
    torch.manual_seed(21)
    assert module.choose(independent, 512, 100) == module.KINDS[0]
    assert module.choose(some, 512, 100) >= 64
    assert module.choose(some, 40, 100) == 40
    assert module.choose(some[:5], 512, 100) == module.KINDS[0]
    model.prepare(independent)
    assert len(model.share) == 512
    assert model.num_kinds == module.KINDS[0]
    other = network("mixture", 12, 50, seed=1)
    other.load_state_dict(model.state_dict())
    assert other.num_kinds == module.KINDS[0]


def test_kinds_of_a_mixture_do_not_differ_by_chance():
    """Independent bits have one kind only: 64 kinds of five strings each must not find more."""
    L, n = 60, 300
    generator = torch.Generator().manual_seed(14)
    p = torch.rand(L, generator=generator)
    x_0 = (torch.rand(3 * n, L, generator=generator) < p).float()
    model = network("mixture", L, 500, num_components=64)
    model.prepare(x_0[:n])
    scale = sys.modules[type(model).__module__].STEP
    log_odds = scale * model.bit.detach()
    fresh = x_0[n:, None]
    each = logsigmoid((2 * fresh - 1) * log_odds).sum(dim=2)  # (2n, K)
    found = (each + (scale * model.share.detach()).log_softmax(0)).logsumexp(dim=1)
    true = (fresh[:, 0] * p.log() + (1 - fresh[:, 0]) * (1 - p).log()).sum(dim=1)
    lost = (true - found).mean().item()  # nats; L / 2n = 0.1 for the frequencies of one kind
    assert 0 < lost < 1


@pytest.mark.parametrize("name", IN_PACKAGE)
def test_what_prepare_found_comes_back_with_the_weights(name):
    """The structure too: it is in the state dict."""
    L, T = 10, 30
    options = {"base_options": {"num_states": 3}} if name == "tree_and_mlp" else {}
    one, other = (network(name, L, T, seed, **options).eval() for seed in (0, 1))
    one.prepare(chain_strings(300, L))
    x_t, t = inputs(6, L, T)
    assert not one(x_t, t).equal(other(x_t, t))
    other.load_state_dict(one.state_dict())
    assert one(x_t, t).equal(other(x_t, t))
    if name != "columns":  # which only learns what bits say of each other
        assert one(x_t, t).abs().max() > 1


@pytest.mark.parametrize("base", ["hidden_tree", "mixture"])
def test_tree_and_mlp_starts_where_its_base_ends(base):
    """Whatever the MLP's own prepare() knows of the bits is not counted twice."""
    L, T = 10, 30
    model = network("tree_and_mlp", L, T, base=base).eval()
    model.prepare(chain_strings(300, L))
    x_t, t = inputs(8, L, T)
    torch.testing.assert_close(model(x_t, t), model.base(x_t, t), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="base: expected one of hidden_tree, mixture, found 'x'"):
        network("tree_and_mlp", L, T, base="x")


@pytest.mark.parametrize("parents", [[0, 0, 3, 1], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 9, 0]])
def test_weights_that_hold_no_tree_are_refused(parents):
    model = network("hidden_tree", 4, 10)
    weights = model.state_dict() | {"parent": torch.tensor(parents)}
    with pytest.raises(UserError, match=r"x\.pt: the weights do not fit the network: .*tree"):
        checkpoint.load_weights(model, weights, Path("x.pt"))


@pytest.mark.parametrize("parents", [[1, 2, 0], [1, 0, 2], [0, -1, 0], [0, 0, 3]])
def test_weights_that_hold_no_forest_are_refused(parents):
    model = network("forest", 3, 10, num_trees=2, num_leaves=2)
    checkpoint.load_weights(model, model.state_dict(), Path("x.pt"))
    saved = model.state_dict()
    saved["parent"][2] = torch.tensor(parents)
    with pytest.raises(UserError, match=r"x\.pt: the weights do not fit the network: .*tree"):
        checkpoint.load_weights(model, saved, Path("x.pt"))


@pytest.mark.parametrize("constant", [0.0, 1.0])
@pytest.mark.parametrize("name", IN_PACKAGE)
def test_prepare_takes_odd_data(name, constant):
    """One string, a bit that never changes, a string of one bit."""
    for x_0 in (torch.full((1, 3), constant), torch.full((5, 1), constant)):
        model = network(name, x_0.shape[1], 20).eval()
        model.prepare(x_0)
        logits = model(x_0, torch.arange(1, len(x_0) + 1))
        assert logits.isfinite().all()
        assert ((logits > 0) == (constant == 1)).all()


# ----------------------------------------------------------------------------- the table


def test_one_row_of_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    path = GALLERY / "table.py"
    spec = importlib.util.spec_from_file_location("gallery_table", path)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    assert set(table.NETWORKS) == {"residual_mlp", *IN_GALLERY}
    monkeypatch.setattr(table, "SAMPLES", 8)
    monkeypatch.setattr(table, "SAMPLE_STEPS", 5)
    folder = table.run_folder(table.DATA[0], None)
    folder.config.training.num_bound_draws, folder.config.model.num_sample_steps = 64, 2
    row = table.measure(folder, "residual_mlp", table.DATA[0], steps=3)
    assert row[0] == "residual_mlp"
    assert len(row) == 6
    page = (GALLERY / "README.md").read_text(encoding="utf-8")
    for data in table.DATA:
        assert f"**{data}**" in page
