"""The native shape of a configuration: its keys, its checks, and the objects it stands for."""
