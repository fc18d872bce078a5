"""Recorded work: the protocol with a stand-in for the GPU, and the real thing where there is one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bernoulli_diffusion import sampling
from bernoulli_diffusion.bits.process import BernoulliDiffusionProcess
from bernoulli_diffusion.diffusion import Diffusion
from bernoulli_diffusion.noise import Noise
from bernoulli_diffusion.reverse_model import ReverseModel
from bernoulli_diffusion.system import cuda_graph


def on_gpu(tensor: torch.Tensor) -> SimpleNamespace:
    """What recorded asks of an example, with tensor behind it."""
    return SimpleNamespace(device=SimpleNamespace(type="cuda"), clone=tensor.clone)


@pytest.fixture
def streams(monkeypatch) -> list:
    """The streams that were made current."""
    made = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the first")
    monkeypatch.setattr(torch.cuda, "set_stream", made.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def test_elsewhere_nothing_is_recorded():
    assert cuda_graph.recorded(torch.add, torch.ones(2), torch.ones(2)) is torch.add


def test_a_recording_gets_the_arguments_and_its_results_last(monkeypatch, streams):
    def record(function, inputs):
        output = torch.full((3,), torch.nan)
        return lambda: output.copy_(function(*inputs)), output

    monkeypatch.setattr(cuda_graph, "_record", record)
    zeros = on_gpu(torch.zeros(3))
    add = cuda_graph.recorded(torch.add, zeros, zeros)
    first = add(torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 20, 30]))
    second = add(first, torch.ones(3))
    assert first.tolist() == [11, 22, 33]
    assert second.tolist() == [12, 23, 34]
    assert streams == []


def test_what_cannot_be_recorded_is_called(monkeypatch, streams):
    def refuse(_function, _inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graph, "_record", refuse)
    assert cuda_graph.recorded(torch.neg, on_gpu(torch.zeros(3))) is torch.neg
    assert streams == ["the first"]


class Looking(nn.Module):
    """A network that looks at what it has computed, which a recording cannot."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x_t, t):
        logits = self.model(x_t, t)
        return logits if logits.sum().item() < 1e30 else -logits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("sampler", [sampling.ancestral, sampling.balanced])
@pytest.mark.parametrize("is_looking", [False, True])
def test_samples_are_the_same_recorded_or_not(sampler, is_looking, monkeypatch):
    torch.manual_seed(0)
    model = ReverseModel(20, 100, width=32)
    nn.init.normal_(model.read_out.weight)
    network = Looking(model) if is_looking else model
    diffusion = Diffusion(BernoulliDiffusionProcess(100, "cuda"), network.cuda().eval())
    noise = Noise(3, torch.arange(64, device="cuda"), 20)
    times = sampling.grid_times(100, 50)
    *_, (_, x) = sampler(diffusion, noise, times)
    monkeypatch.setattr(sampling, "recorded", lambda function, *_: function)
    *_, (_, expected) = sampler(diffusion, noise, times)
    assert x.equal(expected)
