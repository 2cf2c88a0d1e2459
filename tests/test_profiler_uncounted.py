"""No operator counts silently as nothing: what has no formula is listed, by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from llmrec_kernels import embedding_bag
from llmrec_kernels.encoders import bundled_encoder_path
from llmrec_kernels.profiler import CostCounter


def counted(call: Any, **options: Any) -> CostCounter:
    with CostCounter(**options) as counter:
        call()
    return counter


@pytest.fixture(scope="module")
def encoder() -> Any:
    return pytest.importorskip("transformers").AutoModel.from_pretrained(bundled_encoder_path())


def closed_form(config: Any, texts: int, tokens: int) -> int:
    """Multiply-adds of a BERT, two operations each: Devlin et al. 2019, section 3.

    A layer projects queries, keys, values and their mix (4 d² a token), feeds forward through a
    wider layer (2 d ff a token), and attends: T scores and T values of d for each token.
    """
    d, wide = config.hidden_size, config.intermediate_size
    layer = tokens * (4 * d * d + 2 * d * wide) + 2 * tokens * tokens * d
    return 2 * texts * (config.num_hidden_layers * layer + d * d)  # and the pooler, for one token


@pytest.mark.parametrize(("texts", "tokens"), [(1, 7), (4, 64), (3, 200)])
def test_an_encoder_takes_the_operations_of_its_closed_form(
    encoder: Any, texts: int, tokens: int
) -> None:
    ids = torch.randint(1000, 20_000, (texts, tokens))
    with torch.no_grad():
        found = counted(lambda: encoder(input_ids=ids))
    assert found.total.flops == pytest.approx(closed_form(encoder.config, texts, tokens), rel=0.01)
    assert found.uncounted == {}


def test_training_an_encoder_is_counted_as_torch_counts_it(encoder: Any) -> None:
    ids = torch.randint(1000, 20_000, (2, 16))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.0)

    def step() -> None:
        encoder(input_ids=ids).last_hidden_state.square().mean().backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    found = counted(step)
    with FlopCounterMode(display=False) as theirs:
        step()
    assert found.uncounted == {}
    # The attention of CPUs is all that torch does not know here.
    attention = sum(entry.cost.flops for name, entry in found.by_op.items() if "for_cpu" in name)
    assert found.total.flops - attention == theirs.get_total_flops() > 0


@torch.library.custom_op("llmrec_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def test_a_custom_operator_without_a_formula_is_listed_and_not_counted_as_nothing() -> None:
    x = torch.ones(4, 4)
    found = counted(lambda: (mystery(x), mystery(x), x @ x))
    assert found.uncounted == {"llmrec_tests.mystery": 2}
    assert found.total.flops == 2 * 4 * 4 * 4
    assert any("mystery" in line and "uncounted" in line for line in str(found).splitlines())


@torch.library.custom_op("llmrec_tests::known_later", mutates_args=())
def known_later(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def test_a_formula_that_a_user_registers_with_torch_counts() -> None:
    x = torch.ones(4, 4)
    assert counted(lambda: known_later(x)).uncounted == {"llmrec_tests.known_later": 1}
    register_flop_formula(torch.ops.llmrec_tests.known_later)(lambda shape, **kwargs: 7)
    found = counted(lambda: known_later(x))
    assert found.uncounted == {}
    assert found.total.flops == 7


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: torch.linalg.solve(torch.eye(3), torch.ones(3, 1)), "linalg"),
        (lambda: torch.linalg.eigh(torch.eye(3)), "linalg_eigh"),
        (lambda: torch.linalg.cholesky(torch.eye(3)), "cholesky"),
        (lambda: torch.cdist(torch.ones(30, 3), torch.ones(30, 3), compute_mode="donot_use_mm_for_euclid_dist"), "cdist"),  # noqa: E501
        (lambda: torch.fft.fft(torch.ones(8)), "fft"),
    ],
)  # fmt: skip
def test_what_multiplies_and_has_no_formula_is_listed(call: Any, name: str) -> None:
    found = counted(call).uncounted
    assert any(name in each for each in found), found


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (lambda: torch.mv(torch.ones(3, 5), torch.ones(5)), 2 * 15),
        (lambda: torch.addmv(torch.ones(3), torch.ones(3, 5), torch.ones(5)), 2 * 15),
        (lambda: torch.dot(torch.ones(5), torch.ones(5)), 2 * 5),
        (lambda: torch.zeros(3, 4).addmm_(torch.ones(3, 5), torch.ones(5, 4)), 2 * 60),
        (lambda: torch.zeros(2, 3, 4).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4)), 2 * 120),
    ],
)
def test_products_that_torch_leaves_out_are_counted(call: Any, flops: int) -> None:
    found = counted(call)
    assert found.total.flops == flops
    assert found.uncounted == {}


def test_products_of_integers_are_integer_operations() -> None:
    for dtype in (torch.int8, torch.int64):
        left, right = torch.ones(3, 5, dtype=dtype), torch.ones(5, 4, dtype=dtype)
        product = torch._int_mm if dtype == torch.int8 else torch.mm
        found = counted(lambda: product(left, right)).total  # noqa: B023 - called in this turn
        assert (found.flops, found.int_ops) == (0, 2 * 60)


def test_a_sparse_product_takes_the_elements_that_are_there() -> None:
    sparse, dense = torch.eye(40).to_sparse_csr(), torch.ones(40, 3)
    assert counted(lambda: sparse @ dense).total.flops == 2 * 40 * 3
    assert counted(lambda: sparse @ torch.ones(40)).total.flops == 2 * 40


def test_one_operator_in_two_kinds_of_arithmetic_has_two_roofs() -> None:
    wide, narrow = torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bfloat16)
    found = counted(lambda: (wide @ wide, narrow @ narrow, wide @ wide)).by_op
    assert (found["aten.mm"].kind, found["aten.mm"].calls) == ("float32", 2)
    other = found["aten.mm (bfloat16)"]
    assert (other.kind, other.calls) == ("bfloat16", 1)


def test_what_takes_functions_runs_and_is_listed() -> None:
    x = torch.ones(4, 4)
    with torch.no_grad():
        found = counted(lambda: torch.cond(x.sum() > 0, lambda v: v @ v, lambda v: v, (x,)))
    assert "cond" in found.uncounted


def test_what_is_in_proportion_to_its_elements_is_neither_counted_nor_listed() -> None:
    x = torch.ones(4, 6)

    def call() -> None:
        y = x.clone().add_(1).exp().softmax(1)
        y.sum(), y.topk(2), y.sort(), y.argmax(), torch.cat([y, y]), y[torch.tensor([1, 2])]
        torch.nn.functional.layer_norm(y, (6,)), torch.where(y > 0, y, x), y.cumsum(0)
        torch.nn.functional.cross_entropy(y, torch.tensor([0, 1, 2, 3]))
        y.index_add_(0, torch.tensor([1]), torch.ones(1, 6)), torch.randperm(5), y.norm()

    found = counted(call)
    assert found.total.flops == 0
    assert found.uncounted == {}


def test_a_lookup_moves_the_rows_that_it_names() -> None:
    table, ids = torch.ones(1000, 8), torch.tensor([5, 5, 7])
    for call in (
        lambda: torch.nn.functional.embedding(ids, table),
        lambda: table[ids],
        lambda: table.index_select(0, ids),
    ):
        moved = counted(call).total
        assert (moved.bytes_read, moved.bytes_written) == (3 * 8 + 3 * 8 * 4, 3 * 8 * 4)


def test_an_update_in_place_moves_what_it_writes() -> None:
    table, ids = torch.ones(1000, 8), torch.tensor([5, 7])
    moved = counted(lambda: table.index_add_(0, ids, torch.ones(2, 8))).by_op["aten.index_add_"]
    assert (moved.cost.bytes_read, moved.cost.bytes_written) == (2 * 8 + 2 * 8 * 4, 2 * 8 * 4)


def test_what_is_overwritten_is_not_read() -> None:
    moved = counted(lambda: torch.empty(10, 8).copy_(torch.ones(10, 8))).by_op["aten.copy_"].cost
    assert (moved.bytes_read, moved.bytes_written) == (10 * 8 * 4, 10 * 8 * 4)
    out = torch.empty(3, 5)
    moved = (
        counted(lambda: torch.mm(torch.ones(3, 4), torch.ones(4, 5), out=out)).by_op["aten.mm"].cost
    )
    assert (moved.bytes_read, moved.bytes_written) == (4 * (12 + 20), 4 * 15)


def test_bags_of_torch_read_the_rows_that_they_name() -> None:
    table, ids = torch.ones(1000, 8), torch.tensor([[5, 5, 7], [7, 1, 5]])
    found = counted(lambda: torch.nn.functional.embedding_bag(ids, table), details=True)
    (bag,) = (entry for name, entry in found.by_op.items() if "embedding_bag" in name)
    assert 6 * 8 * 4 <= bag.cost.bytes_read <= 6 * 8 * 4 + 100  # and the ids
    assert (bag.rows, bag.unique_rows) == (6, 3)


def test_elements_that_a_dimension_repeats_are_read_once() -> None:
    wide = torch.ones(1, 8).expand(1000, 8)
    assert counted(lambda: wide.sum()).total.bytes_read == 8 * 4


def test_room_that_nobody_writes_to_moves_nothing() -> None:
    assert counted(lambda: torch.empty(1000)).total.bytes == 0


def test_details_count_the_rows_that_differ() -> None:
    table, ids = torch.ones(50, 8), torch.tensor([[5, 5, 7], [7, 1, 5]])
    for name, call in (
        ("llmrec.embedding_bag", lambda: embedding_bag(table, ids)),
        ("aten.embedding", lambda: torch.nn.functional.embedding(ids, table)),
    ):
        entry = counted(call, details=True).by_op[name]
        assert (entry.rows, entry.unique_rows) == (6, 3)
        assert counted(call).by_op[name].rows is None


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, "float32"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")],
)
def test_the_kind_of_arithmetic_is_that_of_the_arguments(dtype: torch.dtype, kind: str) -> None:
    x = torch.ones(4, 4, dtype=dtype)
    assert counted(lambda: x @ x).by_op["aten.mm"].kind == kind


def test_compiled_code_is_counted_as_what_it_was_compiled_from() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    batch = torch.randn(10, 8)
    flops = 2 * 10 * (8 * 32 + 32 * 4)
    compiled = torch.compile(network)
    assert counted(lambda: compiled(batch)).total.flops == flops  # not compiled yet
    expected = compiled(batch)
    with torch.no_grad():
        compiled(batch)
        assert counted(lambda: compiled(batch)).total.flops == flops  # compiled before
    with torch.inference_mode():
        assert counted(lambda: compiled(batch)).total.flops == flops
    whole = torch.compile(network, fullgraph=True)
    torch.testing.assert_close(whole(batch), expected)
    assert counted(lambda: whole(batch)).total.flops == flops
    assert whole(batch).shape == (10, 4)  # and compiled code runs again afterwards


def test_a_traced_function_is_counted() -> None:
    layer = torch.nn.Linear(8, 32)
    batch = torch.randn(10, 8)
    traced = torch.jit.trace(layer, batch)
    for _ in range(3):
        traced(batch)
    assert counted(lambda: traced(batch)).total.flops == 2 * 10 * 8 * 32


def test_a_body_that_raises_leaves_nothing_behind() -> None:
    counter = CostCounter()

    def body() -> None:
        with counter:
            _ = torch.ones(2) + 1
            raise KeyError("from the body")

    with pytest.raises(KeyError):
        body()
    calls = counter.by_op["aten.add"].calls
    _ = torch.ones(2) + 1
    assert counter.by_op["aten.add"].calls == calls == 1
