"""Encoders: texts in, one vector each out.

`TextEncoder` runs any Hugging Face encoder or decoder that is a local folder or a name on the hub,
and keeps the vectors on disk. Importing this room imports torch and no transformers.
"""

from llmrec_kernels.encoders.augment import TokenDropout
from llmrec_kernels.encoders.compress import Compression
from llmrec_kernels.encoders.models import ModelNotFoundError, bundled_encoder_path
from llmrec_kernels.encoders.text import TextEncoder

__all__ = [
    "Compression",
    "ModelNotFoundError",
    "TextEncoder",
    "TokenDropout",
    "bundled_encoder_path",
]
