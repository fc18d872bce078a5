"""Work on a GPU that is recorded once and then launched as a whole (CUDA graphs).

A step of a sampler with a small network is a hundred kernels of a few microseconds. Python takes longer
to start them, one by one, than the GPU to run them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # calls before recording, in which libraries choose algorithms and take memory


def recorded(function: Callable[..., Tensor], *examples: Tensor) -> Callable[..., Tensor]:
    """function, which computes a tensor from tensors like the examples; on a GPU as a CUDA graph.

    What cannot be recorded, such as a network that looks at what it has computed, is called as it
    is, and so is everything on other devices.
    """
    if examples[0].device.type != "cuda":
        return function
    inputs = [example.clone() for example in examples]
    before = torch.cuda.current_stream()
    try:
        replay, output = _record(function, inputs)
    except RuntimeError:
        torch.cuda.set_stream(before)  # torch may leave another one current
        torch.cuda.synchronize()
        return function

    def call(*arguments: Tensor) -> Tensor:
        for kept, given in zip(inputs, arguments, strict=True):
            kept.copy_(given)
        replay()
        return output.clone()  # the next call writes over it

    call.function = function  # keeps the tensors alive that the recording uses
    return call


def _record(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Callable, Tensor]:
    """What launches function(*inputs) again, and the tensor where its result then is."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP - 1):
            function(*inputs)
        # What waits for the GPU cannot be recorded, and a recording that fails leaves torch's memory
        # and random states damaged: find out first.
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            function(*inputs)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function(*inputs)
    return graph.replay, output
