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


def test_it_is_json_and_text():
    found = info.collect()
    assert json.loads(json.dumps(found)) == found
    text = info.render(found)
    for heading in ("Versions", "Devices", "Compiled extension", "Backends", "Missing"):
        assert heading in text.splitlines()
