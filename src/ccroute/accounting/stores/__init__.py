"""Where ledgers keep their rows: in memory, in an SQLite file, in a ledger of the user's own.

Knows rows, files and threads; must not know calls or routers.
"""
