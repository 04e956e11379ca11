"""The only layer that touches sockets, clocks and event loops.

Performs the effects that flows yield. Must not decide anything: no retry, no routing, no pricing.
"""
