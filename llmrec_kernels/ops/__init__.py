"""Tensors in, tensors out: the operators, one room each."""

from llmrec_kernels.ops.candidate_scores import candidate_scores
from llmrec_kernels.ops.cosine_topk import TopK, cosine_topk
from llmrec_kernels.ops.embedding_bag import embedding_bag
from llmrec_kernels.ops.pack import PackedItems, pack
from llmrec_kernels.ops.quantize import QuantizedTable, quantize

__all__ = [
    "PackedItems",
    "QuantizedTable",
    "TopK",
    "candidate_scores",
    "cosine_topk",
    "embedding_bag",
    "pack",
    "quantize",
]
