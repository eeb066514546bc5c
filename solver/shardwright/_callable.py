"""Packages named after what they do can be called: ``sw.check`` is both.

Importing a submodule binds it as an attribute of its package, so a function of the
same name in the package would be lost at the first such import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(module: str, function: Callable[..., Any]) -> None:
    """Let calling the module ``module`` call ``function``."""

    class CallableModule(ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return function(*arguments, **options)

    CallableModule.__call__.__doc__ = function.__doc__
    sys.modules[module].__class__ = CallableModule
