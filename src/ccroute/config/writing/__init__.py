"""Writes settings as one native TOML file."""
