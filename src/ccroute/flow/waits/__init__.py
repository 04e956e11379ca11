"""What a call waits for before a request is sent: its turn under a rate limit, a slot at a host, and budgets.

Must not know what is sent, nor which deployment is tried next.
"""
