"""Sources as files, and the faults of a configuration as a list."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ccroute.config import load
from ccroute.errors import ConfigError

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.fixture
def faults() -> Callable[..., tuple[str, ...]]:
    def faults(sources: Any, env: Mapping[str, str] | None = None, **overrides: Any) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            load(sources, env or {}, overrides)
        return caught.value.faults

    return faults


@pytest.fixture
def fixtures() -> Path:
    return FIXTURES
