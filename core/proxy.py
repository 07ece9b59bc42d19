"""Proxies for ports. A port is a Protocol that another part implements, in this process or in another."""

from collections.abc import Awaitable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

P = TypeVar("P")


class Call(Protocol):
    """Executes one call: a method name and its arguments."""

    def __call__(self, method: str, *arguments: Any, **settings: Any) -> Awaitable[Any]: ...


def proxy(port: type[P], call: Call) -> P:
    """An object with the port's methods. Each goes through `call`. It can be pickled if `call` can."""
    return cast(P, _Proxy(port, call))


class _Proxy:
    def __init__(self, port: type[Any], call: Call) -> None:
        self._port = port
        self._call = call

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_") or not hasattr(self._port, method):
            raise AttributeError(f"{self._port.__name__} has no method {method!r}; declare it there, and implement it")
        return partial(self._call, method)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Proxy, (self._port, self._call)
