"""HTTP/1.1 exchanges over connections of our own, or through an httpx transport.

Knows origins, headers, bytes and deadlines; must not know backends, flows or models. All of it is written
once, as coroutines: those of blocking sockets never suspend, and `blocking.run` runs them to their end.
"""
