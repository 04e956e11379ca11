"""The native shape of a configuration: its keys, its checks, and the objects that it describes."""
