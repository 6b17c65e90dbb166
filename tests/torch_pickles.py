"""Pickles as torch writes them, made without torch."""

from __future__ import annotations

import pickle


class TorchStorage:
    """A storage, pickled by its persistent identity."""

    identity: tuple


class Rebuilt:
    """Pickles as torch's tensors do: a call of `torch._utils._rebuild_tensor_v2`."""

    def __init__(self, *call):
        self.call = call[0], call[1:]

    def __reduce__(self):
        return self.call


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, TorchStorage) else None
