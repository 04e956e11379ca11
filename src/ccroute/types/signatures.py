"""Signatures that show each keyword of a `TypedDict`, and constructors that explain an unknown keyword.

Knows signatures; must not know what a keyword means: `ccroute.types.hints` has the advice.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

M = TypeVar("M", bound=Callable[..., Any])
Made = Literal["Router", "Backend", "Agent"]
"""The kind of object that a constructor makes. It decides the advice for an unknown keyword."""


def with_keywords(method: Callable[..., Any], options: Mapping[str, Any]) -> inspect.Signature:
    """The signature of `method` with the annotated `options` in place of its `**`."""
    signature = inspect.signature(method)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shown = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for name, annotation in options.items()
        if name not in signature.parameters
    ]
    return signature.replace(parameters=[*fixed, *shown])


def completed_live(getter: M) -> M:
    """A decorator of a property's getter: it removes the return type at run time. A notebook then completes
    from the object. With the type, jedi (0.20) completes from the class, which lacks pydantic's fields."""
    getter.__annotations__.pop("return", None)
    return getter


def explains(made: Made, options: Mapping[str, Any] | None = None) -> Callable[[M], M]:
    """A decorator of constructors: the error for an unknown keyword says what to write instead.

    options: the keywords that its `**` takes.
    """

    def explained(init: M) -> M:
        signature = with_keywords(init, options or {})
        known = signature.parameters.keys() - {"self"}

        @functools.wraps(init)
        def __init__(self: Any, *args: Any, **given: Any) -> None:
            for name in given:
                if name not in known:
                    from ccroute.types.hints import constructor_hint  # only where something is wrong

                    advice = constructor_hint(made, name, known)
                    raise TypeError(f"{type(self).__name__} takes no argument {name!r}: {advice}")
            init(self, *args, **given)

        __init__.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it; typeshed lacks it
        return __init__  # type: ignore[return-value]  # it takes what the signature says

    return explained
