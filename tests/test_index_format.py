"""The files of an index: what is in them, and that each version of them is still read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from index_folders import EXTREMES, files, filled, numbers, rewrite_manifest
from safetensors import safe_open

from llmrec_kernels import ItemIndex, pack, quantize
from llmrec_kernels.index import STORAGES, IndexFormatError, manifest, store

WRITTEN = Path(__file__).parent / "index_format_1"  # by tests/index_format_fixture.py
FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def fixture(version: int) -> Path:
    return WRITTEN.with_name(f"index_format_{version}")


@pytest.mark.parametrize("version", manifest.READERS)
def test_each_version_that_is_read_has_a_folder_that_was_written_by_it(version):
    content = json.loads((fixture(version) / "manifest.json").read_text())
    assert content["version"] == version
    assert content["segments"]
    assert content["removed"]
    assert (fixture(version) / f"journal-{content['journal']}.log").stat().st_size > 64


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
def test_version_1_is_read_as_it_was_written(mmap):
    index = ItemIndex.load(WRITTEN, mmap=mmap)
    assert (index.dim, index.metric, index.storage, index.version) == (3, "dot", "int8", 7)
    ids = [-(2**63), 0, 4, 5, 7, 8, 20, 2**63 - 1]
    assert list(index) == ids
    assert index.vectors(ids).tolist() == [
        [1.0, 0.0, 0.49803924560546875],
        [0.0, 0.0, 0.0],
        [0.00196075439453125, 0.75, -1.0],
        [1.0, 1.9960784912109375, 3.0],
        [3.0, 1.9960784912109375, 1.0],
        [2.0, -1.0, 0.4941176176071167],
        [1.0, 1.0, 0.0],
        [-2.0, 0.1294116973876953, 1.0],
    ]
    found = index.search(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]), 9)
    assert found.ids.tolist() == [
        [7, 8, 5, 20, -(2**63), 2**63 - 1, 0, 4, -1],
        [2**63 - 1, 4, 0, 20, -(2**63), 5, 7, 8, -1],
    ]
    assert found.scores.tolist() == [
        [
            *(9.992156982421875, 6.44705867767334, 5.9960784912109375, 3.0, 2.4941177368164062),
            *(2.2676467895507812, 0.0, -1.4980392456054688, -float("inf")),
        ],
        [
            *(3.8794116973876953, 0.37303924560546875, 0.0, -0.5, -1.0, -1.0009803771972656),
            *(-2.0019607543945312, -5.5, -float("inf")),
        ],
    ]


def test_what_was_read_of_version_1_can_be_changed_and_saved(tmp_path):
    shutil.copytree(WRITTEN, tmp_path / "index")
    with ItemIndex.open(tmp_path / "index") as index:
        index.remove([7])
        index.save(tmp_path / "index")
    assert list(ItemIndex.load(tmp_path / "index")) == [-(2**63), 0, 4, 5, 8, 20, 2**63 - 1]


# What docs/index-format.md says, with other readers.


@pytest.mark.parametrize("storage", STORAGES)
def test_a_segment_is_a_safetensors_file_of_the_rows_in_the_order_of_their_ids(tmp_path, storage):
    vectors, bias, scale = numbers(9, 7, seed=1), numbers(9, seed=2), numbers(9, seed=3)
    ids = torch.tensor([5, -3, 12, *EXTREMES, 0, 1, 99, 98])
    index = ItemIndex(7, storage=storage)
    index.add(ids, vectors, bias=bias, scale=scale)
    index.save(tmp_path)
    ids, order = ids.sort()
    vectors, bias, scale = vectors[order], bias[order], scale[order]
    (path,) = tmp_path.glob("segment-*.safetensors")
    there, found = tensors(path)
    assert there == {"format": "llmrec_kernels.ItemIndex", "version": "1"}
    rows = expected_rows(vectors, storage)
    expected = {
        **rows,
        "ids": ids,
        "item_bias": bias,
        "item_scale": scale,
        "checksums": found["checksums"],
    }
    assert set(found) == set(expected) | {name for name in found if name.startswith("gap_")}
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name
    assert not any(tensor.any() for name, tensor in found.items() if name.startswith("gap_"))
    assert found["codes"].shape == (1, 2, 16, 4)


def test_each_block_of_a_segment_has_its_checksum_and_the_manifest_that_of_the_table(tmp_path):
    index = ItemIndex(64)
    index.add(range(500), numbers(500, 64, seed=1))
    index.save(tmp_path)
    (path,) = tmp_path.glob("segment-*.safetensors")
    found = tensors(path)[1]["checksums"].view(torch.int64).numpy().view("<u8")
    raw = path.read_bytes()[: -found.nbytes]
    blocks = [raw[start : start + 65_536] for start in range(0, len(raw), 65_536)]
    assert len(blocks) == 3
    assert found.tolist() == [xxhash.xxh3_64_intdigest(block) for block in blocks]
    (record,) = json.loads((tmp_path / "manifest.json").read_text())["segments"]
    assert record["checksum"] == xxhash.xxh3_64_hexdigest(found.tobytes())


def test_what_was_removed_is_a_safetensors_file_of_positions(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TAIL", 16)
    filled(removed=True).save(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    path = tmp_path / f"removed-{content['removed']['token']}.safetensors"
    assert content["removed"]["checksum"] == xxhash.xxh3_64_hexdigest(path.read_bytes())
    found = tensors(path)[1]
    ids = [
        tensors(tmp_path / f"segment-{each['token']}.safetensors")[1]["ids"]
        for each in content["segments"]
    ]
    gone = [
        set(of[found[each["token"]].long()].tolist()) if each["removed"] else set()
        for of, each in zip(ids, content["segments"], strict=True)
    ]
    assert gone == [{64, 32, 44}, {-28, 2**63 - 1, 0, 2, 4}, set()]


def test_the_manifest_is_json_with_a_checksum(tmp_path):
    index = filled(storage="int4", metric="dot")
    index.save(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    checksum = content.pop("checksum")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert checksum == xxhash.xxh3_64_hexdigest(text.encode())
    (segment,) = content.pop("segments")
    assert segment["rows"] == 60
    assert content == {
        "format": "llmrec_kernels.ItemIndex",
        "version": 1,
        "dim": 5,
        "metric": "dot",
        "storage": "int4",
        "changes": 3,
        "journal": None,
        "removed": None,
    }
    ItemIndex.open(tmp_path).close()
    token = json.loads((tmp_path / "manifest.json").read_text())["journal"]
    assert [path.name for path in tmp_path.glob("journal-*")] == [f"journal-{token}.log"]


def test_a_journal_has_a_record_for_each_change(tmp_path):
    ItemIndex(2).save(tmp_path)
    with ItemIndex.open(tmp_path) as index:
        index.add([9, -1], torch.tensor([[1.0, 2.0], [3.0, 4.0]]), bias=torch.tensor([5.0, 6.0]))
        index.remove([9])
    token = json.loads((tmp_path / "manifest.json").read_text())["journal"]
    raw = (tmp_path / f"journal-{token}.log").read_bytes()
    head = struct.pack("<8sII8s8sQ16x", b"LLMRECJ\n", 1, 0, bytes.fromhex(token), bytes(8), 1)
    put = struct.pack("<2q4f2f", -1, 9, 3, 4, 1, 2, 6, 5)
    one = struct.pack("<8sIIQQQ", b"LLMRECR\n", 1, 1, 1, 2, len(put))
    two = struct.pack("<8sIIQQQ", b"LLMRECR\n", 2, 0, 2, 1, 8)
    gone = struct.pack("<q", 9)
    expected = [head, check(head), one, check(one + put), put, two, check(two + gone), gone]
    assert raw == b"".join(expected)


# What is not of this version, or of something else.


@pytest.mark.parametrize("read", [ItemIndex.load, ItemIndex.open], ids=["load", "open"])
@pytest.mark.parametrize("version", [2, 0, -1, 2**70, "1", 1.0, True, None, [1]], ids=repr)
def test_a_version_that_is_not_known_is_refused(tmp_path, version, read):
    filled().save(tmp_path)
    rewrite_manifest(tmp_path, lambda content: content.update(version=version))
    before = files(tmp_path)
    with pytest.raises(IndexFormatError) as caught:
        read(tmp_path)
    text = f"manifest.json is of version {version!r}; this llmrec_kernels reads 1: a newer one may"
    assert text in str(caught.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", "1", "null", '"llmrec_kernels.ItemIndex"', '{"format": "another"}', '{"dim": 3}'],
)
def test_a_manifest_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(IndexFormatError, match=r"manifest.json is of something else; expected"):
        ItemIndex.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"<html>", b"{'a': 1}", b"\x80\x02"])
def test_a_manifest_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(IndexFormatError, match=r"manifest.json is no JSON"):
        ItemIndex.load(tmp_path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path):
    index = filled()
    index.save(tmp_path)
    ItemIndex.open(tmp_path).close()
    (path,) = tmp_path.glob("journal-*.log")
    head = bytearray(path.read_bytes())
    head[8:12] = struct.pack("<I", 2)
    path.write_bytes(head[:56] + check(head[:56]))
    for read in (ItemIndex.load, ItemIndex.open):
        with pytest.raises(IndexFormatError, match=r"is of version 2; this llmrec_kernels reads 1"):
            read(tmp_path)


def tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors, as the safetensors library reads them."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def expected_rows(vectors: torch.Tensor, storage: str) -> dict[str, torch.Tensor]:
    """What belongs to rows: as `quantize` and `pack` have it, which have tests of their own."""
    if storage in FLOATS:
        kept = vectors.to(FLOATS[storage])
        columns = {"data": kept}
    else:
        kept = quantize(vectors, storage)
        columns = {"data": kept.codes, "scale": kept.scale, "bias": kept.bias}
    rows = pack(kept).rows()
    return {
        **columns,
        "inverse_norms": rows.inverse_norms,
        "codes": rows.sketch.codes,
        "unit_scale": rows.sketch.unit_scale,
        "residual": rows.sketch.residual,
    }


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def check(raw: bytes) -> bytes:
    return np.uint64(xxhash.xxh3_64_intdigest(bytes(raw))).tobytes()
