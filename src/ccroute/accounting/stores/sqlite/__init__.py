"""The ledger in an SQLite file, and the accounts of budgets in it.

Only `ccroute.accounting.stores` and the PostgreSQL ledger, which keeps a journal in such a file, know of it.
"""
