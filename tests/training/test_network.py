"""The user's reverse_model.py: how it is found, run and tried, and how its mistakes are told."""

import copy
import dataclasses
import inspect
import pickle
import sys
import textwrap
import traceback

import pytest
import torch
from torch import nn

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.training import network as architecture
from bernoulli_diffusion.training.network import Source, build, live_source, load_class, try_out

L, T = 6, 1000
PATH = "run/reverse_model.py"

# A network that learns; the line in the middle is what a test puts there.
TEMPLATE = """\
import torch
from torch import nn

class ReverseModel(nn.Module):
    def __init__(self, sequence_length, T, width=16, depth=1):
        super().__init__()
        self.T = T
        self.read_in = nn.Linear(sequence_length + 1, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.5)
        self.read_out = nn.Linear(width, sequence_length)
        {init}

    def forward(self, x_t, t):
        h = torch.relu(self.read_in(torch.cat([x_t, t[:, None] / self.T], dim=1)))
        {hidden}
        logits = self.read_out(h)
        {output}
"""
FORWARD_LINE, HIDDEN_LINE, OUTPUT_LINE = 14, 16, 18


def network(init="pass", hidden="pass", output="return logits") -> Source:
    return Source(PATH, TEMPLATE.format(init=init, hidden=hidden, output=output))


def source(text: str) -> Source:
    return Source(PATH, textwrap.dedent(text))


def message(function, *arguments) -> str:
    """The UserError's text without the path in front."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(f"{PATH}:")
    return text.removeprefix(f"{PATH}:")


def tried(source: Source, length: int = L, T: int = T, options=()) -> None:
    try_out(source, build(source, length, T, dict(options)), length, T)


# ----------------------------------------------------------------------------- finding the file


def test_the_run_folders_own_file_comes_first(tmp_path):
    package = live_source(None)
    assert package.path == architecture.PACKAGE_FILE
    assert package.text == architecture.PACKAGE_FILE.read_text()
    assert live_source(tmp_path).path == architecture.PACKAGE_FILE
    own = tmp_path / "reverse_model.py"
    own.write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")
    assert live_source(tmp_path).path == own
    assert live_source(tmp_path).text == "x = 1\ny = 2\n"
    assert live_source(tmp_path).sha256 == Source("elsewhere", "x = 1\ny = 2\n").sha256
    assert live_source(tmp_path).sha256 != package.sha256


def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path):
    own = tmp_path / "reverse_model.py"
    own.symlink_to(tmp_path / "gone.py")
    with pytest.raises(UserError, match=r"reverse_model\.py: no such file"):
        live_source(tmp_path)
    own.unlink()
    own.mkdir()
    with pytest.raises(UserError, match=r"reverse_model\.py: this is a folder"):
        live_source(tmp_path)
    own.rmdir()
    own.write_bytes(b"x = 1\ny = '\xe9'\n")
    with pytest.raises(UserError, match=r"reverse_model\.py:2: not UTF-8 text; save the file as"):
        live_source(tmp_path)


def test_a_source_from_a_checkpoint_may_hold_anything():
    junk = Source("x.pt (reverse_model.py)", "\ud800")
    with pytest.raises(UserError, match="cannot be imported: UnicodeEncodeError"):
        load_class(junk)


# ----------------------------------------------------------------------------- what works


@pytest.mark.parametrize("length", [1, 2, 4, 5, 20])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_the_shipped_network_passes(length, steps):
    tried(live_source(None), length, steps)
    tried(live_source(None), length, steps, {"dropout": 0.9, "width": 8})


GOOD = {
    "plain": network(),
    "zero output layer": network(init="nn.init.zeros_(self.read_out.weight)"),
    "batch norm": network(hidden="h = self.norm(h)"),
    "dropout": network(hidden="h = self.drop(h)"),
    "some parameters frozen": network(init="self.read_in.requires_grad_(False)"),
    "unused parameters": network(init="self.unused = nn.Linear(3, 3)"),
    "weights tied": network(init="self.twice = self.read_out"),
    "float64 output": network(output="return logits.double()"),
    "bfloat16 inside": network(
        init="self.coarse = nn.Linear(width, width, dtype=torch.bfloat16)",
        hidden="h = self.coarse(h.bfloat16()).float()",
    ),
    "bfloat16 output": network(output="return logits.bfloat16()"),
    "loud bias": network(init="self.read_out.bias.data.fill_(20.0)"),
    "deaf": network(hidden="h = torch.ones_like(h)"),
    "counts its calls": network(init="self.calls = 0", hidden="self.calls += 1"),
    "train() returns nothing": network(
        init="nn.init.zeros_(self.read_out.weight)\n\n"
        "    def train(self, mode=True):\n        super().train(mode)"
    ),
    "any options": source("""
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, *sizes, **options):
                super().__init__()
                self.layer = nn.Linear(sizes[0], sizes[0])
            def forward(self, x_t, t):
                return self.layer(x_t)
    """),
    "other names": source("""
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, length, steps, /):
                super().__init__()
                self.layer = nn.Linear(length, length)
            def forward(self, bits, time):
                return self.layer(bits)
    """),
    "attention over the bits": source("""
        import torch
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, sequence_length, T):
                super().__init__()
                self.bit = nn.Embedding(2, 8)
                self.place = nn.Parameter(torch.randn(sequence_length, 8))
                self.time = nn.Embedding(T + 1, 8)
                self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
                self.read_out = nn.Linear(8, 1)
                nn.init.zeros_(self.read_out.weight)
            def forward(self, x_t, t):
                h = self.bit(x_t.long()) + self.place + self.time(t)[:, None]
                return self.read_out(self.layer(h))[:, :, 0]
    """),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_networks_that_pass(name):
    for seed, length in enumerate((L, 4, 50, 1)):
        torch.manual_seed(seed)
        tried(GOOD[name], length)


ANNOTATED = """\
from __future__ import annotations

import dataclasses
import inspect
import typing

from torch import Tensor, nn


@dataclasses.dataclass
class Sizes:
    width: int = 8
    name: typing.ClassVar[str] = "sizes"
    extra: dataclasses.InitVar[int] = 0


class ReverseModel(nn.Module):
    def __init__(self, sequence_length: int, T: int, width: int = 8):
        super().__init__()
        self.sizes = Sizes(width)
        self.layer = nn.Linear(sequence_length, sequence_length)
        self.own_text = inspect.getsource(Sizes)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.layer(x_t)
"""


def test_dataclasses_pickle_annotations_and_inspect():
    """All of these look the class's module up in sys.modules."""
    source = Source(PATH, ANNOTATED)
    model = build(source, L, T, {"width": 3})
    assert model.sizes.width == 3
    assert dataclasses.asdict(model.sizes) == {"width": 3}
    assert model.own_text.startswith("@dataclasses.dataclass\nclass Sizes:\n    width")
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is type(model)
    assert again.layer.weight.equal(model.layer.weight)
    assert inspect.getsource(type(model)).startswith("class ReverseModel(nn.Module):\n")
    assert inspect.get_annotations(type(model).forward, eval_str=True)["t"] is torch.Tensor
    try_out(source, model, L, T)


def test_two_sources_live_side_by_side():
    first, second = build(network(), L, T, {}), build(network(init="self.x = 1"), L, T, {})
    assert type(pickle.loads(pickle.dumps(first))) is type(first)
    assert type(pickle.loads(pickle.dumps(second))) is type(second)
    assert "reverse_model" not in sys.modules  # a user's own module of that name is left alone


def test_the_package_itself_is_not_replaced():
    from bernoulli_diffusion import reverse_model

    load_class(live_source(None))
    assert sys.modules["bernoulli_diffusion.reverse_model"] is reverse_model


def test_a_traceback_shows_the_text_that_was_loaded(tmp_path):
    path = tmp_path / "reverse_model.py"
    path.write_text(network(hidden="raise KeyError('here')").text)
    model = build(live_source(tmp_path), L, T, {})
    path.write_text("something else\n" * 30)
    with pytest.raises(KeyError) as caught:
        model(torch.zeros(1, L), torch.ones(1))
    assert traceback.extract_tb(caught.tb)[-1].line == "raise KeyError('here')"


# ----------------------------------------------------------------------------- what does not import


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ny = = 2\n", "2: cannot be imported: SyntaxError: invalid syntax$"),
        ("if True:\nx = 1\n", "2: cannot be imported: SyntaxError: expected an indented block"),
        ("x = 1\x00\n", "cannot be imported: "),
        (
            "\nimport no_such_module\n",
            "2: cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("x = 1\nx / 0\n", "2: cannot be imported: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)", "2: cannot be imported: SystemExit: 0"),
        ("def f():\n  f()\nf()", "2: cannot be imported: RecursionError: maximum recursion"),
        ("\neval('1 +')", "2: cannot be imported: SyntaxError: invalid syntax"),
        ("import json\njson.loads('x')", "2: cannot be imported: JSONDecodeError: Expecting value"),
        ("raise ValueError('a\\x1b[31m')", "1: cannot be imported: ValueError: a\\x1b[31m"),
        ("raise ValueError('one\\ntwo')", "1: cannot be imported: ValueError: one$"),
        ("x = 1", " has no class ReverseModel; expected `class ReverseModel(nn.Module)`"),
        ("class ReverseModel: ...", " has something else called ReverseModel; expected `class"),
        ("ReverseModel = None", " has no class ReverseModel; expected `class"),
    ],
)
def test_what_does_not_import(text, expected):
    before = set(sys.modules)
    found = message(load_class, Source(PATH, text)) + "$"
    assert expected in found
    if expected[0].isdigit():
        assert found.startswith(expected)
    if "cannot be imported" in expected:
        assert not [name for name in set(sys.modules) - before if name.startswith("reverse_model")]


def test_control_characters_in_the_path_are_escaped():
    with pytest.raises(UserError, match=r"^a\\x1bb\.py:1: cannot be imported") as caught:
        load_class(Source("a\x1bb.py", "1 / 0"))
    assert str(caught.value).isprintable()


def test_ctrl_c_is_not_a_mistake_of_the_file():
    with pytest.raises(KeyboardInterrupt):
        load_class(source("raise KeyboardInterrupt"))


# ----------------------------------------------------------------------------- options


def option_errors(source: Source, options: dict) -> list[str]:
    with pytest.raises(UserError) as caught:
        build(source, L, T, options)
    lines = str(caught.value).split("\n")
    assert all(line.isprintable() for line in lines)
    return lines


def test_options_reach_the_network():
    assert build(network(), L, T, {"width": 5, "depth": 2}).read_in.out_features == 5
    assert build(network(), L, T, {}).read_in.out_features == 16
    keyword_only = network(init="pass").text.replace("T, width", "T, *, width")
    assert build(Source(PATH, keyword_only), L, T, {"width": 5}).read_in.out_features == 5


def test_unknown_options_come_at_once():
    assert option_errors(network(), {"widht": 5, "depth": 1, "colour\x1b": 2, "T": 3}) == [
        f"model.reverse_model.widht: {PATH} has no such option; did you mean width?",
        f"model.reverse_model.colour\\x1b: {PATH} has no such option; known: width, depth",
        f"model.reverse_model.T: {PATH} has no such option; known: width, depth",
    ]
    assert option_errors(GOOD["other names"], {"length": 5}) == [
        f"model.reverse_model.length: {PATH} has no such option; known: none"
    ]
    assert option_errors(
        Source(PATH, network().text.replace("T, width", "T, *more, width")), {"more": 5}
    ) == [f"model.reverse_model.more: {PATH} has no such option; known: width, depth"]


def test_a_network_that_takes_any_option():
    build(GOOD["any options"], L, T, {"whatever": 3, "options": 4})
    wants_all = Source(PATH, network().text.replace("depth=1", "**options"))
    assert "got multiple values for argument 'T'" in option_errors(wants_all, {"T": 3})[0]


@pytest.mark.parametrize(
    ("init", "options", "expected"),
    [
        ("pass", {"width": "wide"}, "8: ReverseModel(6, 1000, width='wide') failed: TypeError: "),
        ("pass", {"width": -5}, "8: ReverseModel(6, 1000, width=-5) failed: RuntimeError: "),
        (
            "pass",
            {"width": 2.5, "depth": 1},
            "8: ReverseModel(6, 1000, width=2.5, depth=1) failed: ",
        ),
        (
            "if width % 2: raise ValueError('width: expected an even number')",
            {"width": 5},
            "12: ReverseModel(6, 1000, width=5) failed: ValueError: width: expected an even number",
        ),
        (
            "import sys; sys.exit()",
            {},
            "12: ReverseModel(6, 1000) failed: SystemExit: (no message)",
        ),
        ("self.__init__(1, 2)", {}, "12: ReverseModel(6, 1000) failed: RecursionError: "),
    ],
)
def test_options_that_the_network_refuses(init, options, expected):
    found = message(build, network(init=init), L, T, options)
    if "RecursionError" in expected:  # the deepest of the user's own lines
        assert ": ReverseModel(6, 1000) failed: RecursionError: " in found
    else:
        assert found.startswith(expected)


def test_a_network_with_another_init():
    takes_one = source("""
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, sequence_length):
                super().__init__()
    """)
    expected = (
        "4: ReverseModel(6, 1000) failed: TypeError: ReverseModel.__init__() takes 2 positional"
    )
    assert message(build, takes_one, L, T, {}).startswith(expected)
    inherits = source("from torch import nn\nclass ReverseModel(nn.Module): ...")
    assert message(build, inherits, L, T, {}).startswith(
        " ReverseModel(6, 1000) failed: TypeError: "
    )
    no_super = source("""
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, sequence_length, T):
                self.layer = nn.Linear(1, 1)
    """)
    expected = "5: ReverseModel(6, 1000) failed: AttributeError: cannot assign module before"
    assert message(build, no_super, L, T, {}).startswith(expected)


def test_long_options_are_shortened():
    text = message(build, network(), L, T, {"width": list(range(10_000))})
    assert "width=[0, 1, 2, 3, 4, 5, ...]" in text


# ----------------------------------------------------------------------------- what cannot be trained

WANTED = "expected log-odds of x_0 of shape (B, L) = (4, 6)"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"output": "return logits[:, :-1]"}, f"14: forward returned shape (4, 5); {WANTED}"),
        ({"output": "return logits.T"}, f"14: forward returned shape (6, 4); {WANTED}"),
        ({"output": "logits"}, f"14: forward returned NoneType; {WANTED}"),
        ({"output": "return logits.detach().numpy()"}, f"14: forward returned ndarray; {WANTED}"),
        ({"output": "return logits > 0"}, f"14: forward returned torch.bool; {WANTED} in floating"),
        ({"output": "return logits + 0j"}, f"14: forward returned torch.complex64; {WANTED} in float"),
        ({"output": "return logits / 0"}, "14: forward returned numbers that are not finite on fair"),
        ({"output": "return logits.detach()"}, "14: forward's output is detached from the parameters"),
        ({"output": "return (logits > 0).float()"}, "14: forward's output is detached from the param"),
        ({"output": "return 0 * logits"}, "14: the gradient is zero everywhere, so nothing would be"),
        ({"output": "return logits * torch.sqrt(0 * logits.mean())"}, "14: the gradient is not finite"),
        ({"init": "self.requires_grad_(False)"}, "14: ReverseModel has no trainable parameters"),
        ({"init": "self.read_in = nn.LazyLinear(width)"}, "14: ReverseModel has lazy layers; expected"),
        ({"hidden": "raise ValueError('bad')"}, "16: failed on a small batch: ValueError: bad; expect"),
        ({"hidden": "import sys; sys.exit(0)"}, "16: failed on a small batch: SystemExit: 0; expected"),
        ({"hidden": "self.forward(x_t, t)"}, ": failed on a small batch: RecursionError: "),
        ({"hidden": "x_t.mul_(2).sub_(1)"}, "14: forward changed x_t or t in place; expected it to"),
        ({"hidden": "t -= 1"}, "14: forward changed x_t or t in place; expected it to"),
        ({"hidden": "h.relu_().add_(1); h.mul_(h)"}, "14: failed on a small batch: RuntimeError: one of"),
        ({"init": "self.time = nn.Embedding(T, 1)", "hidden": "h = h + self.time(t)"},
         "16: failed on a small batch: IndexError: index out of range"),
        ({"init": "self.derived = self.read_in.weight * 2"},
         "5: cannot be copied, as the averaged weights are: RuntimeError: Only Tensors created"),
        # across the batch
        ({"hidden": "h = h - h.mean(dim=0)"}, "14: the output of a row depends on the other rows of"),
        ({"hidden": "h = h.flip(0)"}, "14: the output of a row depends on the other rows of"),
        ({"hidden": "h = h * t.float().softmax(dim=0)[:, None]"}, "14: the output of a row depends on"),
        ({"output": "return logits.squeeze()"},
         "14: after one step of training, in eval mode: forward returned shape (6,); expected"),
        ({"output": "return logits if self.training else logits.T"},
         "14: after one step of training, in eval mode: forward returned shape (6, 4); expected"),
        # dropout that is always on
        ({"hidden": "h = nn.functional.dropout(h, 0.5)"}, "14: two calls in eval mode on the same x_t"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_networks_that_cannot_be_trained(parts, expected):
    found = message(tried, network(**parts))
    if expected[0].isdigit():
        assert found.startswith(expected)
    assert expected in found


@pytest.mark.parametrize(
    "hidden",
    [
        "h = h - h.mean(dim=0)",
        "h = self.norm(h) - h.mean(dim=0)",
        "h = h.flip(0)",
        "h = nn.functional.dropout(h, 0.5)",
    ],
)
def test_an_output_layer_of_zeros_hides_nothing(hidden):
    zeros = "nn.init.zeros_(self.read_out.weight); nn.init.zeros_(self.read_out.bias)"
    found = message(tried, network(init=zeros, hidden=hidden))
    assert "depends on the other rows" in found or "two calls in eval mode" in found


def test_rounding_is_no_influence():
    """In half precision a network's rows may differ by a percent; a bias is no excuse for more."""
    torch.manual_seed(0)
    logits = 20 + 0.1 * torch.randn(4, 6)
    close = architecture._close
    assert close(logits + 0.001, logits)
    assert close(logits.bfloat16(), (logits * 1.005).bfloat16())
    assert not close(logits + 0.03, logits)
    assert not close(logits, logits.flip(0))
    assert close(torch.zeros(4, 6), torch.zeros(4, 6))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_attention_over_the_batch_instead_of_the_bits():
    """What nn.TransformerEncoderLayer does unless told batch_first=True."""
    text = GOOD["attention over the bits"].text.replace(", batch_first=True", "")
    for seed in range(10):
        torch.manual_seed(seed)
        assert "depends on the other rows" in message(tried, Source(PATH, text))


def test_swapped_rows_and_bits_do_not_pass_when_the_string_is_as_long_as_the_batch():
    for length in (4, 5):
        text = message(tried, network(output="return logits.T"), length)
        assert f"forward returned shape ({length}, " in text


def test_both_modes_are_tried():
    for mode, place in (("self.training", "16: failed"), ("not self.training", "16: failed")):
        source = network(hidden=f"assert {mode}")
        assert message(tried, source).startswith(place)
        model = build(source, L, T, {}).eval()
        assert message(try_out, source, model, L, T).startswith(place)


def test_no_parameters():
    text = """
        import torch
        from torch import nn
        class ReverseModel(nn.Module):
            def __init__(self, sequence_length, T):
                super().__init__()
            def forward(self, x_t, t):
                return torch.zeros_like(x_t)
    """
    assert message(tried, source(text)) == "7: ReverseModel has no trainable parameters"


def test_forward_with_other_arguments():
    text = network().text.replace("def forward(self, x_t, t):", "def forward(self, x_t, t, y):")
    found = message(tried, Source(PATH, text))
    assert found.startswith(
        "14: failed on a small batch: TypeError: ReverseModel.forward() missing 1"
    )
    assert found.endswith("expected forward(x_t, t) to take x_t (B, 6) and t (B,)")
    text = network().text.replace("def forward", "def backwards")
    found = message(tried, Source(PATH, text))
    assert found.startswith(" failed on a small batch: NotImplementedError: ")


# ----------------------------------------------------------------------------- and leaves no trace


def state_of(model: nn.Module) -> tuple:
    """All that a try could change."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(id(x), x.clone(), x.grad, x.requires_grad) for x in tensors],
        [module.training for module in model.modules()],
        model.calls,
        torch.get_rng_state(),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_try_leaves_everything_as_it_was(training, fails):
    counting = (
        "self.calls = 0; self.register_buffer('seen', torch.zeros(1), persistent=False);"
        " self.register_buffer('kept', torch.zeros(1))"
    )
    hidden = (
        "self.calls += 1; self.seen += 1; self.kept = self.kept + 1; h = self.drop(self.norm(h))"
    )
    text = network(init=counting, hidden=hidden + ("; raise ValueError" if fails else ""))
    model = build(text, L, T, {}).train(training)
    model.norm.eval()  # a mode of its own
    torch.manual_seed(123)
    before = state_of(model)
    if fails:
        message(try_out, text, model, L, T)
    else:
        try_out(text, model, L, T)
    after = state_of(model)
    for (a_id, a, *a_rest), (b_id, b, *b_rest) in zip(before[0], after[0], strict=True):
        assert a_id == b_id
        assert a.equal(b)
        assert a_rest == b_rest
        assert b_rest[0] is None
    assert before[1:3] == after[1:3]
    assert before[3].equal(after[3])


def test_a_try_gives_one_answer():
    """It draws its own random numbers: the same file passes or fails whatever was drawn before."""
    source, model = network(), build(network(), L, T, {})
    seen = []
    original = model.forward
    model.__class__.forward = lambda self, x_t, t: (
        seen.append((x_t.clone(), t.clone())),
        original.__func__(self, x_t, t),
    )[1]
    for seed in (1, 2):
        torch.manual_seed(seed)
        try_out(source, copy.deepcopy(model), L, T)
    half = len(seen) // 2
    for (x, t), (y, u) in zip(seen[:half], seen[half:], strict=True):
        assert x.equal(y)
        assert t.equal(u)
    assert {1, T} <= set(seen[0][1].tolist())  # the ends of the range of times
    assert set(seen[0][0].unique().tolist()) == {0.0, 1.0}
    assert seen[0][0].dtype == torch.float32
    assert seen[0][1].dtype == torch.int64


# ----------------------------------------------------------------------------- looking at the data


def prepared(body: str):
    """A network whose prepare does this, after it has looked at ten strings."""
    look = "\n\n    def prepare(self, x_0):\n        " + body
    given = Source(PATH, network().text + look + "\n")
    model = build(given, L, T, {})
    architecture.prepare(given, model, torch.ones(10, L))
    return model


def test_prepare_sets_parameters():
    model = prepared("self.read_out.bias.data.copy_(x_0.mean(dim=0))")
    assert model.read_out.bias.tolist() == [1.0] * L


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("raise ValueError('too few')", "prepare failed on 10 training samples: ValueError: too"),
        ("x_0 @ x_0", "prepare failed on 10 training samples: RuntimeError"),
        ("x_0.zero_()", "prepare changed x_0 in place; expected it to leave it"),
        ("self.more = nn.Parameter(x_0[0])", "prepare added, removed or reshaped parameters"),
        ("self.read_out = nn.Linear(3, 3)", "prepare added, removed or reshaped parameters"),
        ("self.read_out.bias.data.log_()", "prepare left parameters or buffers that are not fin"),
    ],
)
def test_what_prepare_must_not_do(body, wanted):
    assert wanted in message(prepared, body)
    assert message(prepared, body).startswith("2")  # the line
