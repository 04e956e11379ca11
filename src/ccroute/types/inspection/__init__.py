"""What a router says of itself: `explain()`, `health()` and `stats()`. Loaded only where somebody asks."""
