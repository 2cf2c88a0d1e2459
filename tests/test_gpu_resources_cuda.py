"""What compiled CUDA C++ kernels take of a GPU is read rightly, and what gets worse is reported."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cases import random

from llmrec_kernels import pack
from llmrec_kernels.ops.cosine_topk import nvrtc
from llmrec_kernels.ops.rows import rows_of

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "bench"
needs_compilers = pytest.mark.skipif(
    shutil.which("nvcc") is None or importlib.util.find_spec("triton") is None,
    reason="no nvcc, or no triton with its nvdisasm",
)


@pytest.fixture(scope="module")
def rooms():
    """The modules, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield {
            name: importlib.import_module(name)
            for name in ("sass", "gpu_table", "cuda_resources", "cuda_model")
        }


@pytest.fixture(scope="module")
def sass(rooms):
    return rooms["sass"]


@pytest.fixture(scope="module")
def cuda(rooms):
    return rooms["cuda_resources"]


# A loop with a rare way (out of line, behind the end), one that is skipped by the shortest way, and
# a function that the kernel calls.
TEXT = """
.text._ZN6llmrec4cuda4poolILNS_7StorageE3ELb1EEEvNS0_8PoolCallE:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 EXIT ;
.L_x_1:
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0030*/               @P1 BRA `(.L_x_3) ;
        /*0040*/              @!P2 BRA `(.L_x_2) ;
        /*0050*/                   FFMA R0, R4, R5, R6 ;
        /*0060*/                   FFMA R0, R4, R5, R6 ;
.L_x_2:
        /*0070*/              @!PT LDS RZ, [RZ] ;
        /*0080*/                   LDS.64 R8, [R9] ;
        /*0090*/                   BRA.U UP0, `(.L_x_1) ;
        /*00a0*/                   F2F.F64.F32 R2, R0 ;
        /*00b0*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*00c0*/                   EXIT ;
.L_x_3:
        /*00d0*/                   CALL.REL.NOINC `($__internal_0_$__cuda_sm20_div_s64) ;
        /*00e0*/                   BRA `(.L_x_2) ;
        .weak           $__internal_0_$__cuda_sm20_div_s64
$__internal_0_$__cuda_sm20_div_s64:
        /*00f0*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0100*/                   RET.REL.NODEC R2 `(_ZN6llmrec4cuda4poolE) ;
        /*0110*/                   NOP ;
.text._ZN6llmrec4cuda6narrowENS0_8TopkCallE:
        /*0000*/                   EXIT ;
"""


def test_a_loop_is_told_from_what_is_outside_and_from_rare_ways(sass):
    functions = sass.functions(TEXT)
    assert len(functions) == 2
    lines = next(iter(functions.values()))
    assert sass.opcodes(lines)["LDG.E.128"] == 1  # of the function that is called
    work = sass.work_of(lines, "LDG.128", 1, sass.Route(most=("FFMA",)), sass.Route())
    assert work.loops == [{"LDG.128": 1, "FFMA": 2, "other": 4, "LDS.64": 1}]
    assert work.outside == {"F2F.64": 1, "STG.128": 1, "other": 3}
    least = sass.work_of(lines, "LDG.128", 1, sass.Route(), sass.Route())
    assert least.loops == [{"LDG.128": 1, "other": 4, "LDS.64": 1}]


def test_a_way_has_as_many_instructions_as_it_is_asked_for_or_there_is_none(sass):
    lines = next(iter(sass.functions(TEXT).values()))
    none = sass.work_of(lines, "LDG.128", 1, sass.Route({"FFMA": 0}, ("FFMA",)), sass.Route())
    assert "FFMA" not in none.loops[0]
    assert sass.work_of(lines, "LDG.128", 1, sass.Route({"FFMA": 1}), sass.Route()) is None
    assert sass.work_of(lines, "IMMA.16832", 1, sass.Route(), sass.Route()) is None
    assert sass.work_of(lines, "LDG.128", 2, sass.Route(), sass.Route()) is None


def test_kinds_of_instructions_have_the_width_of_an_access(sass):
    kinds = {
        "LDG.E.LTC128B.128.CONSTANT": "LDG.128", "LDG.E.U8.CONSTANT": "LDG.8", "LDS": "LDS.32",
        "LDGSTS.E.BYPASS.128": "LDGSTS.128", "IMMA.16832.S8.S8": "IMMA.16832",
        "IDP.4A.S8.S8": "IDP", "DADD": "FP64", "F2F.F64.F32": "F2F.64", "I2F.S8": "I2F",
        "I2FP.F32.S32": "I2FP", "FFMA.RP": "FFMA", "ATOMG.E.ADD.STRONG.GPU": "ATOM",
        "HFMA2.MMA": "other", "IMAD.WIDE.U32": "other",
    }  # fmt: skip
    assert {opcode: sass.kind_of(opcode) for opcode in kinds} == kinds


def test_a_mangled_name_is_that_of_a_row(cuda):
    names = {
        "_ZN6llmrec4cuda4scanILi4ELi8ELi2EEEvNS0_8TopkCallE": "scan 4, 8, 2",
        "_ZN6llmrec4cuda4poolILNS_7StorageE3ELb1EEEvNS0_8PoolCallE": "pool int8_affine, max",
        "_ZN6llmrec4cuda7rescoreILNS_7StorageE7EEEvNS0_8TopkCallE": "rescore fp8_e4m3",
        "_ZN6llmrec4cuda6narrowENS0_8TopkCallE": "narrow",
    }
    assert {mangled: cuda.name_of(mangled) for mangled in names} == names


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6llmrec4cuda6narrowENS0_8TopkCallE' for 'sm_90'
ptxas info    : Function properties for _ZN6llmrec4cuda6narrowENS0_8TopkCallE
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 32 bytes smem
ptxas info    : Compile time = 129.236 ms
ptxas info    : Compiling entry function '_ZN6llmrec4cuda4packENS0_8PackCallE' for 'sm_90'
ptxas info    : Function properties for _ZN6llmrec4cuda4packENS0_8PackCallE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 95 registers, used 0 barriers
"""


def test_what_ptxas_says_is_read_by_kernel(cuda):
    assert cuda.reports(LOG) == {
        "_ZN6llmrec4cuda6narrowENS0_8TopkCallE": (40, 28, 8, 32),
        "_ZN6llmrec4cuda4packENS0_8PackCallE": (95, 0, 0, 0),
    }
    with pytest.raises(ValueError, match="reports no resources of _ZN6llmrec4cuda6narrow"):
        cuda.reports(LOG.replace("Used 40", "Took 40"))


def test_constants_and_dynamic_shared_memory_are_those_of_the_sources(cuda):
    (topk,) = (file for file in cuda.sources() if file.name == "topk.cu")
    constants = cuda.constants_of(topk)
    assert (constants["kStep"], constants["kTileItems"], constants["kDigits"]) == (32, 128, 256)
    for file in cuda.sources():
        for kernel in cuda.dynamic_kernels(file):
            assert kernel in cuda.KERNELS, f"{file.name} has {kernel} with dynamic shared memory"
    assert cuda.scan_shared(constants, (4, 8, 2)) == 36416  # Shape<4, 8, 2>::kShared


def test_a_digest_is_of_what_is_compiled_and_not_of_its_layout(cuda, tmp_path):
    def digest(text):
        (tmp_path / "own.cuh").write_text("constexpr int kOwn = 1;\n")
        file = tmp_path / "kernel.cu"
        file.write_text(f'#include "own.cuh"\n#include "common/cuda.cuh"\n{text}')
        cuda.closure.cache_clear()
        assert {path.name for path in cuda.closure(file)} >= {"own.cuh", "cuda.cuh", "kernel.cu"}
        return cuda.digest(file)

    assert digest("int a;  // why\n\nint b;") == digest("int a; int b;")
    assert digest("int a;") != digest("int b;")


@pytest.fixture(scope="module")
def committed(cuda):
    table = cuda.parsed((BENCH / "gpu_resources.md").read_text())
    assert table, "bench/gpu_resources.md has no CUDA C++ kernels"
    return table


def test_the_table_has_every_file_and_architecture_and_no_row_with_violations(
    cuda, rooms, committed
):
    units = {
        cuda.Unit(file.name, sm): file
        for file in cuda.sources()
        for sm in rooms["gpu_table"].LIMITS
    }
    assert list(cuda.committed_violations(committed, units)) == []
    (gone, *_) = units
    rest = {key: row for key, row in committed.items() if cuda.unit_of(key) != gone}
    assert list(cuda.committed_violations(rest, units)) == [f"{gone}: not in the table"]


def test_what_was_written_is_read_back(cuda, committed):
    rows = [cuda.rendered_row(key, row) for key, row in committed.items()]
    assert [cuda.rendered_row(key, row) for key, row in cuda.parsed("".join(rows)).items()] == rows
    text = (BENCH / "gpu_resources.md").read_text()
    assert all(row in text for row in rows)
    whole = cuda.render(committed, "0", cuda.digests_in(text))
    assert whole.count("\n| scan, B = 4096") == 21
    assert text.endswith(whole.partition("\n## Modelled times")[2])


def test_each_planted_worsening_is_reported(rooms, committed):
    table = rooms["gpu_table"]
    key = max(key for key in committed if key.name.startswith("scan ") and key.sm == 90)
    row = committed[key]
    idle = {kind: count for kind, count in row.mix.items() if not kind.startswith("LDGSTS")}
    planted = {
        "registers grew": replace(row, registers=row.registers + 1),
        "spills grew": replace(row, spills=4),
        "stack grew": replace(row, stack=8),
        "shared grew": replace(row, shared=row.shared + 1),
        "resident warps fell": replace(row, warps=row.warps - 1),
        "no tensor cores any more": replace(row, tensor_cores={}),
        "no async copies any more": replace(row, mix=idle),
    }
    assert table.worse(row, row) == []
    for what, worse in planted.items():
        (line,) = table.compare({key: row}, {key: worse})
        assert line.startswith(f"{key}: {what}")
    (line,) = table.violations(("async copies",), replace(row, mix=idle))
    assert line == "no async copies"


def test_without_nvcc_the_sources_are_those_of_the_table_or_the_check_fails(
    cuda, committed, monkeypatch, capsys
):
    monkeypatch.setattr(cuda, "nvcc_version", lambda: None)
    text = (BENCH / "gpu_resources.md").read_text()
    current = {file.name: cuda.digest(file) for file in cuda.sources()}
    for op, known in cuda.digests_in(text).items():
        text = text.replace(f"{op} {known}", f"{op} {current[op]}")
    same = cuda.update(cuda.sources(), text, ["*"], True, 16)
    assert (same.complaints, same.rows) == ([], 0)
    assert "no CUDA C++ was compiled" in capsys.readouterr().out
    other = text.replace(f"bag.cu {current['bag.cu']}", "bag.cu 0123456789ab")
    (line,) = cuda.update(cuda.sources(), other, ["*"], True, 16).complaints
    assert line == "bag.cu: its sources are not those of the table, and no nvcc can compile them"
    with pytest.raises(Exception, match="there is no nvcc, nothing was compiled"):
        cuda.update(cuda.sources(), text, ["*"], False, 16)


def test_modelled_time_is_that_of_the_slowest_pipe(rooms, committed):
    model = rooms["cuda_model"]
    gpu = model.GPUS["A100-80-SXM"]
    cell = model.scan(4096, 1_000_000, 384)
    key = model.key_of(cell, committed, gpu.sm)
    ideal = replace(committed[key], loops=({"IMMA.16832": 16},), outside={})
    found = model.modelled(cell, key, ideal, "A100-80-SXM", gpu)
    assert found.times["tensor"] == pytest.approx(found.roofline, rel=2e-3)  # padded to tiles
    assert found.share == pytest.approx(1, rel=2e-3)
    busy = replace(ideal, loops=({"IMMA.16832": 16, "other": 240},))
    found = model.modelled(cell, key, busy, "A100-80-SXM", gpu)
    # 256 instructions at four a cycle, where 16 products take 32 cycles.
    assert (found.limit, found.share) == ("issue", pytest.approx(0.5, rel=2e-3))
    doubles = {"FP64": 10, "F2F.64": 10, "LDS.64": 10, "IDP": 10}
    cycles = model.pipes(doubles, 80, cell)
    assert (cycles["float64"], cycles["conversions"]) == (10, 20)
    assert (cycles["load/store"], cycles["dot products"], cycles["issue"]) == (20, 5, 10)


@pytest.mark.parametrize(
    ("width", "k", "count", "launches"),
    [(9_000, 1, 2, 11), (8_000, 1, 2, 9), (9_000, 300, 40, 7), (500, 5, 3, 7)],
)
def test_a_modelled_call_has_the_launches_of_a_real_one(rooms, width, k, count, launches):
    model, (queries, items) = rooms["cuda_model"], (random(count, 4), random(width, 4, seed=1))
    rows, none = rows_of("items", pack(items)), nvrtc.Filters(None, None, None)
    search, launched = nvrtc.Search(queries, rows, k, 0, None, None, none, True), []
    search.launch = lambda kernel, *_: launched.append(kernel)
    search._search(0, search.plan.batch)
    call = model.Call(count, width, 4, k, 0.88)
    assert call.plan == search.plan
    assert model.launches(call.plan, width) == len(launched) == launches


def test_a_whole_call_has_every_batch_its_sample_and_its_launches(rooms, committed):
    model = rooms["cuda_model"]
    gpu = model.GPUS["A100-80-SXM"]

    def seconds(cell):
        key = model.key_of(cell, committed, gpu.sm)
        return model.modelled(cell, key, committed[key], "A100-80-SXM", gpu).seconds

    # 2,048 queries fit the workspace, and a sample has 2,096 groups of 32 (plan_of in topk.cu).
    call = model.Call(4096, 1_000_000, 384, 100, 0.55)
    found = model.modelled_call(call, committed, "A100-80-SXM", gpu)
    assert found.launches == 2 * 11
    parts = [2 * seconds(model.scan(2048, items, 384)) for items in (1_000_000, 67_072)]
    again = 4096 * 100 * 4 * 384 / gpu.bandwidth
    assert found.seconds == pytest.approx(sum(parts) + again + 22 * 2.5e-6)
    assert found.alone.seconds == seconds(model.scan(4096, 1_000_000, 384))


def test_a_target_is_judged_by_the_whole_call_and_a_miss_has_its_reason(rooms, committed):
    model = rooms["cuda_model"]

    def judged(name, *sizes):
        call, gpu = model.Call(*sizes), model.GPUS[name]
        found = model.modelled_call(call, committed, name, gpu)
        verdict = model.verdict(call.target, found.share)
        return found.alone.share, verdict, model.reason(call, found, gpu)

    assert judged("A100-80-SXM", 4096, 1_000_000, 384, 100, 0.55)[1:] == ("55%: met", "")
    for name, needed in (("H100-SXM", "wgmma"), ("B200", "tcgen05")):
        _, verdict, why = judged(name, 4096, 1_000_000, 384, 100, 0.55)
        assert (verdict, needed in why) == ("55%: missed", True)
    share, verdict, why = judged("H100-SXM", 1, 1_000_000, 384, 100, 0.88)
    assert (share, verdict) == (pytest.approx(1), "88%: missed")
    assert why.startswith("launches 0.028 ms and sample ")
    share, verdict, why = judged("RTX-4090", 4096, 1_000_000, 384, 2048, 0.55)
    assert share > 0.55
    assert verdict == "55%: missed"
    assert why == "32 batches of 128 queries, each of which reads all items"


PLANTED = """
#include "common/cuda.cuh"
namespace llmrec::cuda {
__global__ void __launch_bounds__(64) plain(uint4* to, const uint4* from) {
  to[threadIdx.x] = load_16(from + threadIdx.x);
}
__global__ void __launch_bounds__(64) pool(float* to, const float* from) {
  to[threadIdx.x] = from[threadIdx.x];
}
__global__ void __launch_bounds__(64) indexed(float* to, const int* at) {
  float kept[32];
  for (int i = 0; i < 32; ++i) kept[at[i] & 31] = at[i];
  for (int i = 0; i < 32; ++i) to[i] = kept[at[i + 32] & 31];
}
__global__ void __launch_bounds__(64) sharing(float* to) {
  DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = to[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = shared[63 - threadIdx.x];
}
}  // namespace llmrec::cuda
"""


def tool(folder, *arguments):
    options = ("--modules", "--sources", folder / "planted.cu", "--table", folder / "table.md")
    return subprocess.run(
        [sys.executable, *map(str, (BENCH / "gpu_resources.py", *options, *arguments))],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(folder)},
    )


@needs_compilers
def test_planted_kernels_are_compiled_and_what_is_wrong_with_them_is_told(cuda, rooms, tmp_path):
    source = tmp_path / "planted.cu"
    source.write_text(PLANTED)
    result = tool(tmp_path, "--only", "* sm_80")
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert "planted.cu pool sm_80: no 16-byte loads" in lines
    assert any(line.startswith("planted.cu indexed sm_80: 0 bytes of spills, 1") for line in lines)
    assert any("sharing sm_80: its dynamic shared memory is not as KERNELS" in s for s in lines)
    assert lines[-1] == "4 rows, 3 complaints"
    plain = cuda.parsed((tmp_path / "table.md").read_text())[
        rooms["gpu_table"].Key("planted.cu", "plain", 80)
    ]
    assert plain.loads == {"16 B": 1}
    assert (plain.threads, plain.spills, plain.stack, plain.warps) == (64, 0, 0, 64)

    # Another layout is the same code; other code is told where the row differs.
    fine = "__global__".join(PLANTED.split("__global__")[:2]) + "}\n"
    source.write_text(fine)
    assert tool(tmp_path, "--only", "* sm_80").returncode == 0
    source.write_text(fine + "// why\n")
    same = tool(tmp_path, "--only", "* sm_80", "--check", "--sample", str(2**40))
    assert (same.returncode, same.stdout) == (0, "0 rows, 0 complaints\n")
    source.write_text(fine.replace("load_16(from + threadIdx.x)", "from[threadIdx.x * 3]"))
    other = tool(tmp_path, "--only", "* sm_80", "--check")
    assert other.returncode == 1
    assert "plain sm_80: its source has changed, and with it the row" in other.stdout
    source.write_text(fine.replace("to[", "no["))
    broken = tool(tmp_path, "--only", "* sm_80", "--check")
    assert broken.returncode == 1
    assert "planted.cu sm_80: does not compile: " in broken.stdout
