"""The LoRA product on a CPU against a plain one in float64, row by row."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from vllm.lora.layers import LoRAMapping, MergedColumnParallelLinearWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serve.engine.patches.cpu_lora import GroupedLora, Product

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SLOTS, RANK, WIDE, WIDTHS = 3, 8, 48, (32, 16, 16)
Adapter = tuple[list[torch.Tensor | None], list[torch.Tensor | None]]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> PunicaWrapperCPU:
    monkeypatch.setattr(PunicaWrapperCPU, "update_metadata", GroupedLora.update_metadata)
    monkeypatch.setattr(PunicaWrapperCPU, "add_lora_linear", GroupedLora.add_lora_linear)
    return PunicaWrapperCPU(64, 64, device="cpu")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def layer_of(dtype: torch.dtype, widths: tuple[int, ...] = WIDTHS) -> Any:
    """vLLM's own layer, whose slots it fills and empties, without a base layer."""
    layer: Any = MergedColumnParallelLinearWithLoRA.__new__(MergedColumnParallelLinearWithLoRA)
    torch.nn.Module.__init__(layer)
    layer.n_slices, layer.tp_size, layer.output_slices = len(widths), 1, widths
    layer.lora_a_stacked = tuple(torch.zeros(SLOTS, 1, RANK, WIDE, dtype=dtype) for _ in widths)
    layer.lora_b_stacked = tuple(torch.zeros(SLOTS, 1, width, RANK, dtype=dtype) for width in widths)
    return layer


def adapter_of(dtype: torch.dtype, *, rank: int = RANK, absent: tuple[int, ...] = ()) -> Adapter:
    a = [None if i in absent else torch.randn(rank, WIDE).to(dtype) for i in range(len(WIDTHS))]
    b = [None if i in absent else torch.randn(width, rank).to(dtype) for i, width in enumerate(WIDTHS)]
    return a, b


def route(wrapper: PunicaWrapperCPU, rows: list[int]) -> None:
    """`rows`: the adapter of each row, 0 for the base. Adapter i is in slot i - 1."""
    wrapper.update_metadata(LoRAMapping(tuple(rows), tuple(rows), is_prefill=False), [1, 2, 3], SLOTS, 100)


@torch.inference_mode()
def added(wrapper: PunicaWrapperCPU, layer: Any, y: torch.Tensor, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    y = y.clone()
    wrapper.add_lora_linear(y, x, layer.lora_a_stacked, layer.lora_b_stacked, scale, layer.output_slices)
    return y


def expected(adapters: list[Adapter | None], y: torch.Tensor, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """`adapters`: that of each row. In float64, before any rounding."""
    total = y.double()
    for row, adapter in enumerate(adapters):
        for i, (a, b) in enumerate(zip(*(adapter or ((), ())), strict=True)):
            if a is not None and b is not None:
                start = sum(WIDTHS[:i])
                total[row, start : start + WIDTHS[i]] += scale * b.double() @ (a.double() @ x[row].double())
    return total


def assert_rounded_once(found: torch.Tensor, right: torch.Tensor) -> None:
    """At most half a unit of the last place from the exact sum, and float32's own error."""
    half = torch.finfo(found.dtype).eps / 2 * 1.0001
    room = half * right.abs() + 1e-5 * right.abs().max()
    assert ((found.double() - right).abs() <= room).all(), (found.double() - right).abs().max()


@pytest.mark.parametrize("rows", [[1] * 6, [2, 0, 2, 0, 0, 2], [3, 1, 2, 1, 3, 2], [0, 3, 1, 0, 2, 3], [0] * 6])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_every_row_gets_the_exact_sum_of_its_own_adapter_rounded_once(
    wrapper: PunicaWrapperCPU, dtype: torch.dtype, rows: list[int], scale: float
) -> None:
    layer = layer_of(dtype)
    adapters = [adapter_of(dtype), adapter_of(dtype, absent=(0, 2)), adapter_of(dtype, rank=4, absent=(1,))]
    for slot, adapter in enumerate(adapters):
        layer.set_lora(slot, *adapter)
    x, y = torch.randn(6, WIDE).to(dtype), torch.randn(6, sum(WIDTHS)).to(dtype)
    route(wrapper, rows)
    found = added(wrapper, layer, y, x, scale)
    assert_rounded_once(found, expected([adapters[row - 1] if row else None for row in rows], y, x, scale))
    base = [i for i, row in enumerate(rows) if not row]
    assert torch.equal(found[base], y[base])


def test_a_slot_that_is_filled_again_or_emptied_never_gives_its_earlier_adapter(
    wrapper: PunicaWrapperCPU, dtype: torch.dtype
) -> None:
    layer = layer_of(dtype)
    x, y = torch.randn(4, WIDE).to(dtype), torch.zeros(4, sum(WIDTHS), dtype=dtype)
    route(wrapper, [1, 2, 1, 0])
    other = adapter_of(dtype)
    layer.set_lora(1, *other)
    for absent in ((), (2,), (0, 1)):
        adapter = adapter_of(dtype, absent=absent)
        with torch.inference_mode():  # vLLM also loads adapters in the middle of a step
            layer.set_lora(0, *adapter)
        right = expected([adapter, other, adapter, None], y, x)
        for _ in range(2):
            assert_rounded_once(added(wrapper, layer, y, x), right)
    layer.reset_lora(0)
    assert_rounded_once(added(wrapper, layer, y, x), expected([None, other, None, None], y, x))
    a, b = other
    assert b[0] is not None
    layer.lora_b_stacked[0][1].mul_(2)  # one tensor of one slot, as vLLM never writes
    doubled = (a, [2 * b[0], *b[1:]])
    assert_rounded_once(added(wrapper, layer, y, x), expected([None, doubled, None, None], y, x))
    layer.lora_a_stacked[2][1].zero_()
    without = ([*a[:2], None], doubled[1])
    assert_rounded_once(added(wrapper, layer, y, x), expected([None, without, None, None], y, x))
    layer.lora_b_stacked = tuple(torch.zeros_like(stack) for stack in layer.lora_b_stacked)
    assert torch.equal(added(wrapper, layer, y, x), y)


def test_an_adapter_is_prepared_once_and_not_in_every_step(
    wrapper: PunicaWrapperCPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    prepare = Product.__init__
    monkeypatch.setattr(
        Product, "__init__", lambda self, slot, *rest: (made.append(slot), prepare(self, slot, *rest))[1]
    )
    layer = layer_of(torch.float32)
    layer.set_lora(0, *adapter_of(torch.float32))
    layer.set_lora(1, *adapter_of(torch.float32))
    x, y = torch.randn(4, WIDE), torch.zeros(4, sum(WIDTHS))
    for rows in ([1, 2, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [2, 2, 1, 0]):
        route(wrapper, rows)
        for _ in range(3):
            added(wrapper, layer, y, x)
    assert sorted(made) == [0, 1]


def test_two_linears_of_one_wrapper_keep_their_own_adapters(wrapper: PunicaWrapperCPU) -> None:
    layers, adapters = [layer_of(torch.float32) for _ in range(2)], [adapter_of(torch.float32) for _ in range(2)]
    x, y = torch.randn(4, WIDE), torch.randn(4, sum(WIDTHS))
    route(wrapper, [1] * 4)
    for layer, adapter in zip(layers, adapters, strict=True):
        layer.set_lora(0, *adapter)
    for layer, adapter in [*zip(layers, adapters, strict=True)] * 2:
        assert_rounded_once(added(wrapper, layer, y, x), expected([adapter] * 4, y, x))


def test_an_adapter_that_diverged_spoils_only_its_own_rows(wrapper: PunicaWrapperCPU, dtype: torch.dtype) -> None:
    layer = layer_of(dtype)
    a, b = adapter_of(dtype)
    layer.set_lora(0, a, b)
    layer.set_lora(1, a, [None if part is None else part * float("nan") for part in b])
    x, y = torch.randn(4, WIDE).to(dtype), torch.randn(4, sum(WIDTHS)).to(dtype)
    route(wrapper, [1, 2, 0, 1])
    found = added(wrapper, layer, y, x)
    assert found[1].isnan().all()
    rest = [0, 2, 3]
    assert_rounded_once(found[rest], expected([(a, b), None, (a, b)], y[rest], x[rest]))


def test_what_is_added_in_bfloat16_is_not_rounded_before_the_sum(wrapper: PunicaWrapperCPU) -> None:
    """The neighbors of 256 + 1 + 1/256 are 256 and 258. Rounded first, the 1 + 1/256 are 1, and the sum a tie: 256."""
    layer = layer_of(torch.bfloat16, (1,))
    a, b = torch.zeros(RANK, WIDE, dtype=torch.bfloat16), torch.zeros(1, RANK, dtype=torch.bfloat16)
    a[0, 0], a[1, 0], b[0, 0], b[0, 1] = 1, 1, 1, 2**-8
    layer.set_lora(0, [a], [b])
    route(wrapper, [1])
    x = torch.zeros(1, WIDE, dtype=torch.bfloat16)
    x[0, 0] = 1
    y = torch.full((1, 1), 256.0, dtype=torch.bfloat16)
    assert added(wrapper, layer, y, x).item() == 258, (
        "256 + (1.00390625 + 0.00390625) is past the middle of 256 and 258"
    )
