"""The answers to many requests: their iterators, the calls behind them, and what begins next."""

from ccroute.runtime.batches.iterators import AsyncBatch, Batch

__all__ = ["AsyncBatch", "Batch"]
