"""GGUF files, unpacked once: what takes transformers 15 seconds to read then takes one.

A GGUF file holds tokenizer, configuration and weights of a model, the weights in few bits. It is
unpacked into a folder in the Hugging Face layout, with float32 weights, which the numbers of the
file become exactly: four times its size for weights of 4 bits and more.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import torch

from llmrec_kernels._cache import cache_folder
from llmrec_kernels.encoders.models import ModelFiles

# Enters the name of the folder: raised when what is written there changes.
_FORMAT = 2
_SIZES = "unpacked.json"  # bytes of each file, written last
_STALE = 3600.0  # seconds after which a folder that was not finished is nobody's


def unpacked(files: ModelFiles) -> ModelFiles:
    """The model of a GGUF file as a folder; any other model as it is.

    The folder is in `$LLMREC_CACHE/models`, else `~/.cache/llmrec_kernels/models`, under the hash
    of the file: a changed file never meets old weights. Processes side by side may both unpack; the
    first gives its folder to both. A folder whose files are not
    of the sizes that were written is unpacked anew, and half-unpacked ones of an hour ago, which a
    killed process left, are removed. Where there is no room or no permission, one warning says so,
    and the file is read itself.

    Parameters
    ----------
    files : ModelFiles
        What `find_model` returns.

    Returns
    -------
    ModelFiles
        Of the same name.
    """
    if files.gguf is None:
        return files
    folder = cache_folder("models") / f"{files.identity()[:32]}-{_FORMAT}"
    if not _is_whole(folder):
        try:
            _remove_stale(folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        except OSError as error:
            return _packed(files, folder, error)
        try:
            _unpack(files, temporary)
            sizes = {one.name: one.stat().st_size for one in temporary.iterdir()}
            (temporary / _SIZES).write_text(json.dumps(sizes))
            temporary.chmod(0o755)
            temporary.rename(folder)
        except OSError as error:
            if not _is_whole(folder):  # else another process was faster
                return _packed(files, folder, error)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return ModelFiles(files.name, folder)


def _is_whole(folder: Path) -> bool:
    """Whether each file is there with as many bytes as were written."""
    try:
        sizes = json.loads((folder / _SIZES).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _remove_stale(models: Path) -> None:
    for folder in models.glob(".*-*.*"):
        if time.time() - folder.stat().st_mtime > _STALE:
            shutil.rmtree(folder, ignore_errors=True)


def _packed(files: ModelFiles, folder: Path, error: OSError) -> ModelFiles:
    warnings.warn(
        f"model {files.name!r} cannot be unpacked into {folder} ({error}): it is read from its "
        "GGUF file each time, which takes longer. Set LLMREC_CACHE to a folder with room.",
        stacklevel=2,
    )
    return files


def _unpack(files: ModelFiles, folder: Path) -> None:
    """Write tokenizer, configuration and weights; transformers' own way refuses quantized ones."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {**files.load_options(), "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(files.folder, **options)
    model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=torch.float32, **options)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = folder / "model.safetensors"
    # A head that shares the table of the tokens is the second of its name, and is left out.
    first = {tensor.data_ptr(): name for name, tensor in reversed(model.state_dict().items())}
    kept = {name: one for name, one in model.state_dict().items() if name in first.values()}
    save_file(kept, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
