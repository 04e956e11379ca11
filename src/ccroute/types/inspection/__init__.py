"""What a router says of itself: `explain()`, `health()` and `stats()`. Loaded at their first use."""
