"""Count memory and work of tensors while code runs, also of tensors without data: what would the code take?"""

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that counts the bytes of all storages that operations make in it: `now`, and `peak` so far.

    `flops` are the operations of products and convolutions, a multiplication with its addition being two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak, self.flops = 0, 0, 0
        self._sizes: dict[int, int] = {}

    def __enter__(self) -> "TensorMemory":
        """Begin to count, with Python's collector off: what it frees, and when, would change the peak."""
        self._collecting = gc.isenabled()
        gc.disable()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """End the count, and put the collector back."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self._collecting:
            gc.enable()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages of its results that were not there before."""
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        # torch's own FlopCounterMode follows modules by hooks, which autograd.grad does not allow
        if (formula := flop_registry.get(getattr(func, "_overloadpacket", None))) is not None:
            self.flops += formula(*args, **kwargs, out_val=results)
        for value in tree_leaves(results):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self.now += self._sizes[key]
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._forget, key)
        return results

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


@contextlib.contextmanager
def imagined() -> Iterator[TensorMemory]:
    """Run code on tensors that have shapes but no data, and count what it would take."""
    with FakeTensorMode(allow_non_fake_inputs=True), TensorMemory() as memory:
        yield memory
