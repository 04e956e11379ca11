"""How each protocol is spoken: sans-I/O codecs, bytes in and values out.

Knows the canonical request and the results; must not know backends, sockets, clocks or prices.
"""
