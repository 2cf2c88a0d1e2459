"""The named benchmark cells, and what `llmrec-kernels bench` does with them."""
