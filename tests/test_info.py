"""`info` tells the truth about this installation."""

import json
import platform

import torch

from llmrec_kernels import _library, backends, explain, info


def test_it_names_the_versions_that_run():
    found = info.collect()["versions"]
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__


def test_every_operator_says_what_runs_and_why_nothing_faster_does():
    found = info.collect()["backends"]
    assert set(found) == set(backends.OPS)
    for op in backends.OPS:
        chosen = explain(op, torch.empty(0))
        assert found[op]["cpu"]["chosen"] == chosen.chosen
        assert found[op]["cpu"]["refused"] == chosen.refused
        assert "cuda" in chosen.refused


def test_a_missing_extension_is_reported_with_the_reason(monkeypatch):
    monkeypatch.setattr(_library, "load_error", "it failed to load: no such symbol")
    monkeypatch.setattr(_library, "switched_off", lambda: False)
    found = info.collect()
    assert found["extension"] == {"loaded": False, "reason": "it failed to load: no such symbol"}
    assert any("no such symbol" in sentence for sentence in found["missing"])
    assert "not loaded: it failed to load: no such symbol" in info.render(found)


def test_the_cuda_kernels_are_told_with_what_keeps_them_from_running(monkeypatch):
    built = {
        "compiler": "12.2", "level": "avx2", "refused_levels": {}, "levels": {}, "ops": {},
        "cuda": {"version": "13.0", "architectures": ["8.0", "9.0"]},
    }  # fmt: skip
    monkeypatch.setattr(_library, "load_error", None)
    monkeypatch.setattr(_library, "build_info", lambda: {**built, "cuda": {**built["cuda"]}})
    monkeypatch.setattr(_library, "cuda_problem", lambda index: "there is no NVIDIA driver")
    text = info.render(info.collect())
    assert "  CUDA 13.0 kernels for 8.0, 9.0 and newer\n  not cuda: there is no NVIDIA" in text
    monkeypatch.setattr(_library, "cuda_problem", lambda index: "")
    assert "not cuda: there" not in info.render(info.collect())
    built["cuda"] = {}
    assert "  built without CUDA kernels\n" in info.render(info.collect())


def test_it_is_json_and_text():
    found = info.collect()
    assert json.loads(json.dumps(found)) == found
    text = info.render(found)
    for heading in ("Versions", "Devices", "Compiled extension", "Backends", "Missing"):
        assert heading in text.splitlines()
