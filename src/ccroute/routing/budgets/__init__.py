"""What calls may spend: which budgets an attempt needs, what it may cost at most, and who waits for whom.

A router without budgets loads nothing of it.
"""
