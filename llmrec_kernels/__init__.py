"""Exact top-K, embedding lookup and scoring for recommendation with LLM embeddings."""

__version__ = "0.1.0"
