"""Models by name: from a hub (a stand-in for it), from the hub's cache, and from nowhere."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.encoders.models import find_model

NAME = "someone/tiny-random-bert"
COMMIT = "c0ffee" + "0" * 34


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-random-bert")
    transformers.AutoTokenizer.from_pretrained(bundled_encoder_path()).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "tf_model.h5").write_bytes(b"weights of another framework")
    (folder / "pytorch_model.bin").write_bytes(b"weights in an older format")
    return folder


class Hub:
    """The three addresses of the hub that a download asks: model, its files, one file."""

    def __init__(self, folder: Path) -> None:
        self.fetched: list[str] = []
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if path == f"/api/models/{NAME}/tree/{COMMIT}":
                    tree = [
                        {"type": "file", "path": p, "size": len(b), "oid": "0" * 40}
                        for p, b in files.items()
                    ]
                    self.answer(json.dumps(tree).encode())
                elif path.partition("/revision/")[0] == f"/api/models/{NAME}":
                    siblings = [{"rfilename": p} for p in files]
                    model = {"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings}
                    self.answer(json.dumps(model).encode())
                elif path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
                    file = path.split(f"/{COMMIT}/")[1]
                    if self.command == "GET":
                        hub.fetched.append(file)
                    etag = hashlib.sha1(files[file]).hexdigest()
                    self.answer(files[file], ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
                else:
                    self.answer(b"{}", 404, X_Error_Code="RepoNotFound")

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(tiny_bert: Path) -> Iterator[Hub]:
    hub = Hub(tiny_bert)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def closed_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


ENCODE = """
import sys
from llmrec_kernels.encoders import TextEncoder
encoder = TextEncoder(sys.argv[1], cache_dir=sys.argv[2])
print(encoder.pooling, encoder.encode(["Alien", "Toy Story"]).flatten().tolist())
"""
# The look-up alone, by its file: without torch a process takes a tenth of the time.
FIND = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("models", sys.argv[2])
models = sys.modules["models"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
try:
    print(models.find_model(sys.argv[1]).identity())
except models.ModelNotFoundError as error:
    sys.exit(f"ModelNotFoundError: {error}")
"""


def run(
    program: str, hf_home: Path, endpoint: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, because the hub's address is read at import."""
    own = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(hf_home),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=inherited | own | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def find(
    hf_home: Path, endpoint: str, name: str = NAME, **environment: str
) -> subprocess.CompletedProcess[str]:
    file = sys.modules[find_model.__module__].__file__ or ""
    return run(FIND, hf_home, endpoint, name, file, **environment)


def test_a_model_by_name_is_downloaded_when_needed_and_only_then(
    tmp_path: Path, hub: Hub, tiny_bert: Path
) -> None:
    embeddings = tmp_path / "embeddings"
    vectors = TextEncoder(tiny_bert, cache_dir=False).encode(["Alien", "Toy Story"])
    expected = f"cls {vectors.flatten().tolist()}\n"

    first = run(ENCODE, tmp_path / "hf", hub.address, NAME, str(embeddings))
    assert first.stdout == expected, first.stderr
    assert "model.safetensors" in hub.fetched
    assert not {"tf_model.h5", "pytorch_model.bin"} & set(hub.fetched)

    hub.fetched.clear()
    hit = run(ENCODE, tmp_path / "cleaned hf", hub.address, NAME, str(embeddings))
    assert hit.stdout == expected, hit.stderr
    assert "config.json" in hub.fetched
    assert "model.safetensors" not in hub.fetched

    other = tmp_path / "other embeddings"
    no_network = run(ENCODE, tmp_path / "hf", closed_address(), NAME, str(other))
    assert no_network.stdout == expected, no_network.stderr


def test_a_hub_model_is_known_by_its_commit_online_and_offline(tmp_path: Path, hub: Hub) -> None:
    for endpoint, offline in ((hub.address, "0"), (hub.address, "1"), (closed_address(), "0")):
        found = find(tmp_path, endpoint, HF_HUB_OFFLINE=offline)
        assert found.stdout == f"{NAME}@{COMMIT}\n", found.stderr
        assert found.stderr == ""


def test_a_name_that_the_hub_does_not_know_is_refused_by_name(tmp_path: Path, hub: Hub) -> None:
    result = find(tmp_path, hub.address, name="nobody/no-such-model")
    assert result.returncode == 1
    assert "ModelNotFoundError: model 'nobody/no-such-model' is not a local folder" in result.stderr
    assert "RepositoryNotFoundError" in result.stderr


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_an_unknown_name_fails_within_seconds_and_says_what_to_do(
    tmp_path: Path, offline: str
) -> None:
    start = time.monotonic()
    result = find(tmp_path, closed_address(), HF_HUB_OFFLINE=offline)
    assert result.returncode == 1
    for part in (f"model '{NAME}' is not a local folder", "network", "folder", "HF_HOME"):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    # transformers alone retries for 23 s.
    assert time.monotonic() - start < 10


def test_a_hub_that_never_answers_is_given_up_after_the_hub_s_own_time_limit(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = find(tmp_path, address, HF_HUB_ETAG_TIMEOUT="1")
    assert result.returncode == 1
    assert f"model '{NAME}' is not a local folder" in result.stderr
    assert time.monotonic() - start < 10
