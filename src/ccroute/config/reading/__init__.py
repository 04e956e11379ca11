"""Opens sources: files and mappings, their places and faults, and the secrets in their values."""
