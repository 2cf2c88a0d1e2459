"""What a report prints: its figures, each with its label, in text that any terminal shows."""

from __future__ import annotations

import re

import pytest
import reports

from llmrec_kernels.profiler import terminal
from llmrec_kernels.profiler.report import Report, Work

ONE = [name for name, found in reports.pages().items() if len(found) == 1]


def printed(name: str) -> str:
    return terminal.table(reports.pages()[name][0])


def section(text: str, title: str) -> list[list[str]]:
    """The lines under a title, in cells."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(title))
    found = []
    for line in lines:
        if line and not line.startswith("  "):
            break
        found.append(re.split(r"\s{2,}", line.strip()))
    return found


def row(text: str, title: str, name: str) -> list[str]:
    return next(cells for cells in section(text, title) if cells[0] == name)


@pytest.mark.parametrize("name", ONE)
def test_lines_are_at_most_100_columns_of_printable_text(name):
    for line in printed(name).splitlines():
        assert len(line) <= 100
        assert line.isprintable()
        assert line == line.rstrip()


def test_print_shows_the_table(capsys):
    report = reports.cpu_report()
    print(report)  # noqa: T201
    assert capsys.readouterr().out == terminal.table(report) + "\n"


def test_time_stands_for_a_call_and_for_a_unit_with_its_interval():
    text = printed("cpu")
    wall = ["wall", "14.20 ms", "14.13 to 14.30 ms", "221.9 µs", "13.8 to 15.8 ms", "120"]
    assert row(text, "Time", "wall") == wall
    assert "throughput: 4,507 query/s (4,475 to 4,529)" in text  # 64 / 0.0142, / 0.0143, / 0.0141


def test_a_gpu_has_both_its_own_time_and_that_of_the_call():
    text = printed("gpu")
    assert row(text, "Time", "wall")[1] == "420.0 µs"
    assert row(text, "Time", "cuda events")[1] == "360.0 µs"
    assert "cuda events" not in printed("cpu")


def test_work_is_in_units_that_people_read():
    text = printed("cpu")
    title = "Compulsory work of a call"
    assert row(text, title, "operations")[1] == "98.3 GFLOP"
    assert row(text, title, "bytes read")[1] == "768 MB"
    assert row(text, title, "bytes written")[1] == "7.68 kB"
    assert row(text, title, "bytes moved")[1] == "unavailable: no hardware counter"
    assert row(text, title, "not counted")[1] == "aten.sort (calls: 1)"


def test_integer_operations_stand_apart_and_measured_bytes_by_themselves():
    work = Work(flops=2 * 10**9, int_ops=3 * 10**9, bytes_read=5, bytes_written=0, measured_bytes=9)
    found = section(terminal.table(reports.cpu_report(work=work)), "Compulsory work of a call")
    assert found[0] == ["operations", "2.00 GFLOP + 3.00 GOP"]
    assert found[3] == ["bytes moved", "9 B"]
    integers = work.model_copy(update={"flops": 0})
    found = section(terminal.table(reports.cpu_report(work=integers)), "Compulsory work of a call")
    assert found[0] == ["operations", "3.00 GOP"]


def test_the_roofline_says_how_far_from_which_roof_and_whose_roofs_they_are():
    text = printed("cpu")
    assert row(text, "Roofline", "share of roof")[1] == "87%"
    assert row(text, "Roofline", "bound by")[1] == "compute"
    roof = ["main memory", "92.0 GB/s", "measured here, repeats within 1.2%"]
    assert row(text, "Roofline", "main memory") == roof
    assert row(text, "Roofline", "int8")[1] == "8.00 TOP/s"
    assert row(printed("gpu"), "Roofline", "cache")[1] == "6.50 TB/s"


def test_a_share_under_the_roofs_of_a_datasheet_is_modelled():
    text = printed("modelled")
    assert row(text, "Roofline", "share of roof")[1] == "63% (modelled)"
    assert row(text, "Roofline", "bfloat16")[2] == "hardware.csv, H100-SXM"
    assert "modelled" not in printed("gpu")


def test_a_share_above_the_roof_is_explained():
    explained = row(printed("above the roof"), "Roofline", "above 100%")[1]
    assert explained == "the items stay in the cache, which is faster than main memory"
    assert "above 100%" not in printed("cpu")


def test_the_ten_slowest_operators_stand_alone_and_the_rest_in_one_line():
    text = printed("hostile")
    title = "Time by operator"
    rest = row(text, title, "34 more")
    # 44 operators take 10 ms / 1, / 2, / 3, ...
    seconds = [0.01 / i for i in range(1, 45)]
    share = sum(seconds[10:]) / sum(seconds)
    assert rest[1:] == ["34", f"{1000 * sum(seconds[10:]):.2f} ms", f"{share:.0%}"]
    operators = [cells for cells in section(text, title) if len(cells) == 7][1:]
    assert len(operators) == 10
    assert "more" not in "".join(cells[0] for cells in section(printed("cpu"), title))


def test_operations_without_a_formula_are_not_zero():
    title = "Time by operator"
    assert row(printed("cpu"), title, "aten.sort")[4] == "not counted"
    assert row(printed("cpu"), title, "aten.copy_")[4] == "0 FLOP"


def test_energy_stands_by_component_with_its_label():
    text = printed("cpu")
    cpu = ["cpu", "900 mJ (estimated)", "unavailable", "14.1 mJ (estimated)"]
    assert row(text, "Energy", "cpu") == cpu
    assert ["360 to 1,440 mJ", "5.63 to 22.5 mJ"] in section(text, "Energy")
    gpu = ["gpu", "210 mJ (measured)", "160 mJ (measured)", "3.28 mJ (measured)"]
    assert row(printed("gpu"), "Energy", "gpu") == gpu


def test_what_is_unavailable_has_a_reason_and_no_number():
    text = printed("cpu")
    assert row(text, "Energy", "dram") == ["dram", "unavailable", "unavailable", "unavailable"]
    assert ["dram: RAPL has no dram domain here"] in section(text, "Energy")
    prices = row(text, "Costs", "price of machine")
    assert prices == ["price of machine", *["unavailable"] * 3]
    assert ["price of machine: no price was given: usd_per_hour=..."] in section(text, "Costs")


@pytest.mark.parametrize("name", ONE)
def test_every_figure_of_energy_carbon_and_money_has_a_label(name):
    text = printed(name)
    amount = r"[\d.,e+-]+ (?:[pnµmkMGTPE]?(?:J|Wh|g CO2e)|t CO2e|USD)\b"
    interval = rf"[\d.,e+-]+ to {amount}"
    labelled = rf"{amount} \((?:measured|integrated|estimated|modelled)\)"
    body = text.split("\nEnergy\n")[1].split("\nCosts rest on\n")[0]
    assert not re.findall(amount, re.sub(labelled, "", re.sub(interval, "", body)))
    assert "None" not in text


def test_costs_stand_for_one_unit_a_million_and_a_day():
    text = printed("gpu")
    amounts = section(text, "Costs")[0]
    assert amounts == ["1 query", "1,000,000 queries", "a day"]
    # 0.21 J / 64 x 1.15 / 3.6e6 kWh; 2.99 USD x 0.42 ms / 64 / 3600
    energy = row(text, "Costs", "energy")
    assert energy[1:] == ["1.05 µWh (measured)", "1.05 Wh (measured)", "524 Wh (measured)"]
    prices = row(text, "Costs", "price of machine")[1:]
    assert prices == ["5.45e-09 USD (measured)", "0.00545 USD (measured)", "2.73 USD (measured)"]


def test_predictions_keep_their_order_and_their_doubts():
    found = section(printed("predicted"), "On other GPUs")
    assert [cells[0] for cells in found[1:4]] == ["H100-SXM", "L4", "V100-PCIe"]
    fast = ["H100-SXM", "230.0 µs", "memory (int8)", "161 mJ (modelled)", "0.00200 USD (modelled)"]
    assert found[1] == fast
    assert found[3][1:] == ["unavailable"]
    assert ["L4: some pages print sparse peaks"] in found
    assert ["V100-PCIe: it has no int8 tensor cores"] in found


def test_assumptions_have_a_source_and_a_year_where_it_is_known():
    found = section(printed("cpu"), "Costs rest on")
    assert ["grid FRA", "56 g CO2e/kWh", "Ember (2029)"] in found
    assert ["pue", "1.15", "Uptime Institute"] in found


def test_warnings_come_last():
    assert printed("cpu").endswith("\nwarning: the load average was 0.4 before the run")
    assert "warning" not in printed("gpu")


def test_what_was_not_looked_at_is_unavailable():
    text = printed("without roofline")
    assert section(text, "Roofline")[0] == ["unavailable: no roof is known"]
    assert section(text, "Time by operator")[0] == ["unavailable: no operator was counted"]
    assert section(text, "Energy")[0] == ["unavailable: energy was not measured"]


def test_without_roofs_operators_have_no_least_time():
    text = terminal.table(reports.cpu_report(roofline=None))
    assert row(text, "Time by operator", "llmrec.cosine_topk")[-1] == "unavailable"


def test_names_steer_no_terminal_and_are_no_markup():
    text = printed("hostile").replace("\n  ", "")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\x1b[31mred" in text
    assert "[bold]markup[/bold]" in text
    assert ":smile:" in text
    assert reports.SCRIPT in text


def test_the_cells_of_several_machines_stand_together():
    lines = terminal.comparison(reports.merged_reports()).splitlines()
    head = ["cell", "median", "share of roof", "energy of a unit"]
    assert re.split(r"\s{2,}", lines[0]) == head
    names = [line for line in lines[1:] if not line.startswith("  ")]
    assert len(names) == 4
    assert names[0] == "cosine_topk 100,000 x 768 int8, k = 10, batch = 1, cold caches"
    start = lines.index(names[2])
    cpu, gpu = (re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 : start + 3])
    # least time by the roofs, 2 x 768 x 1e6 x 64 / 8e12 s and 768 x 1e6 / 2.9e12 s, over 64%
    assert cpu == ["AMD EPYC 7R13 Processor, cpu", "19.20 ms", "64%", "14.1 mJ (estimated)"]
    assert gpu == ["NVIDIA H100 80GB HBM3, cuda:0", "413.8 µs", "64%", "3.28 mJ (measured)"]
    assert len(lines) == 1 + 4 + 4 + 3  # the GPU did not run the last cell


def test_machines_of_one_name_are_told_apart_by_their_hardware():
    def on(fingerprint: str) -> Report:
        report = reports.cpu_report()
        changed = report.environment.model_copy(update={"fingerprint": fingerprint})
        return report.model_copy(update={"environment": changed})

    text = terminal.comparison([on("a"), on("b"), on("a")])
    assert text.count("Processor, cpu (1) ") == 2
    assert text.count("Processor, cpu (2) ") == 1


def test_cold_and_hot_caches_are_different_cells():
    text = terminal.comparison([reports.cpu_report(), reports.cpu_report(cache="hot")])
    assert "int8, cold caches" in text
    assert "int8, hot caches" in text


def test_a_comparison_says_what_there_is_not():
    line = terminal.comparison([reports.report_without_roofline()]).splitlines()[2]
    assert re.split(r"\s{2,}", line.strip())[2:] == ["unavailable", "unavailable"]


def test_comparing_nothing_is_refused():
    with pytest.raises(ValueError, match="reports is empty; expected at least one report"):
        terminal.comparison([])
