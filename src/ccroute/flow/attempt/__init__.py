"""One attempt at one deployment: the request that it gets, the exchange, and what its failure means.

Must not know which deployment is tried next.
"""
