"""Budgets: which of them an attempt needs, what it may cost at most, and the queues of waiting attempts.

A router without budgets loads nothing of this package.
"""
