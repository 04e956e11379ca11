"""The results of `explain()`, `health()` and `stats()`. Loaded at their first use."""
