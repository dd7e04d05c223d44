"""Functions that work in scripts, in notebooks and under an event loop: the library has one for every command."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

Q = ParamSpec("Q")
T = TypeVar("T")


class Verb(Generic[Q, T]):
    """A function that can be called, or awaited as `aio`."""

    def __init__(self, function: Callable[Q, Coroutine[Any, Any, T]]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> T:
        """Run to the end. In a notebook, whose event loop is busy with this call, a thread does the work."""
        import asyncio

        coroutine = self.aio(*args, **kwargs)
        busy = None
        with contextlib.suppress(RuntimeError):  # no loop is running
            busy = asyncio.get_running_loop()
        return _run_in_thread(coroutine) if busy else asyncio.run(coroutine)

    def aio(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, T]:
        """The same as a coroutine. Raises `UsageError` for an argument below its lower bound."""
        _check_bounds(self._function, *args, **kwargs)
        return self._function(*args, **kwargs)


def _check_bounds(function: Callable[Q, object], *args: Q.args, **kwargs: Q.kwargs) -> None:
    from sandcli.errors import UsageError

    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        for meta in getattr(signature.parameters[name].annotation, "__metadata__", ()):
            if meta.ge is not None and isinstance(value, int | float) and value < meta.ge:
                raise UsageError(f"{name} is {value}", f"pass {name}={meta.ge} or more")


def _run_in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own. Ctrl-C in the calling thread cancels it, as `asyncio.run` does."""
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor
    from contextvars import copy_context

    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.ensure_future(coroutine)
        begun.set_result((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(copy_context().run, asyncio.run, main())
        try:
            return result.result()
        except KeyboardInterrupt:
            loop, task = begun.result()
            with contextlib.suppress(RuntimeError):  # the loop is closed: the work has already ended
                loop.call_soon_threadsafe(task.cancel)
            raise
