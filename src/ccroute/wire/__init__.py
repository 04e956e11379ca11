"""One codec for each protocol: it turns values into bytes and bytes into values, without I/O.

Knows the canonical request and the results; must not know backends, sockets, clocks or prices.
"""
