"""How many examples a property is tried on: all under `make test-all`, a quarter in the quick tests."""

import os


def examples(number: int) -> int:
    """Of so many examples, those to be tried now."""
    return number if os.environ.get("TERRAMIND_XR_TESTS") == "all" else max(1, number // 4)
