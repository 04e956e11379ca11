"""Checks what callers pass to a call, and turns classes and functions into JSON schemas."""
