"""CostCounter counts what runs, once, by the formulas that torch's own counter uses."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from llmrec_kernels import cosine_topk, embedding_bag
from llmrec_kernels.cost import Cost
from llmrec_kernels.profiler import CostCounter


def test_our_operator_counts_by_its_formula_and_nothing_inside_it_counts_again():
    queries, items = torch.randn(3, 16), torch.randn(50, 16)
    for backend in (None, "reference"):
        with CostCounter() as counter:
            cosine_topk(queries, items, 5, backend=backend)
        assert set(counter.by_op) == {"llmrec.cosine_topk"}
        cost = counter.by_op["llmrec.cosine_topk"].cost
        assert cost.flops == 2 * 3 * 50 * 16
        assert cost.bytes_read == 4 * (3 * 16 + 50 * 16)
        assert cost.bytes_written == 3 * 5 * (4 + 8)


def test_a_network_counts_as_torch_counts_it():
    network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    batch = torch.randn(10, 8)
    with CostCounter() as ours:
        network(batch).sum().backward()
    with FlopCounterMode(display=False) as theirs:
        network(batch).sum().backward()
    assert ours.total.flops == theirs.get_total_flops() > 0


def test_inference_mode_counts_the_same():
    network = torch.nn.Linear(8, 32)
    batch = torch.randn(10, 8)
    with CostCounter() as usual:
        network(batch)
    with torch.inference_mode(), CostCounter() as inference:
        network(batch)
    assert inference.total.flops == usual.total.flops == 2 * 10 * 8 * 32


def test_attention_on_the_cpu_is_counted():
    query, key = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 7, 8)
    with torch.no_grad(), CostCounter() as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert counter.total.flops == 2 * (2 * 5 * 7 * 8) * 2  # scores and values, for two heads


def test_a_matrix_product_reads_its_arguments_and_writes_its_result():
    with CostCounter() as counter:
        torch.mm(torch.ones(2, 3), torch.ones(3, 5))
    assert counter.by_op["aten.mm"].cost == Cost(
        flops=2 * 2 * 3 * 5, bytes_read=4 * (6 + 15), bytes_written=4 * 10
    )


def test_views_move_no_bytes():
    tensor = torch.ones(4, 6)
    with CostCounter() as counter:
        tensor.view(24).unsqueeze(0).expand(3, 24)
    assert counter.total.bytes == 0
    assert counter.total.flops == 0


def test_calls_time_and_total_add_up():
    table = torch.randn(20, 4)
    with CostCounter() as counter:
        for _ in range(3):
            embedding_bag(table, torch.tensor([[0, 1], [2, 3]]))
    entry = counter.by_op["llmrec.embedding_bag"]
    assert entry.calls == 3
    assert entry.seconds > 0
    assert entry.cost.flops == 3 * 4 * 4
    assert counter.seconds >= entry.seconds
    assert counter.total.flops >= entry.cost.flops


def test_printing_gives_a_line_for_each_operator_and_a_total():
    with CostCounter() as counter:
        torch.mm(torch.ones(2, 3), torch.ones(3, 5))
    lines = str(counter).splitlines()
    assert lines[0].split() == ["operator", "calls", "seconds", "GFLOP", "MB"]
    assert any(line.startswith("aten.mm ") for line in lines)
    assert lines[-1].startswith("total")


def test_what_runs_outside_is_not_counted():
    with CostCounter() as counter:
        pass
    torch.mm(torch.ones(2, 3), torch.ones(3, 5))
    assert counter.by_op == {}
