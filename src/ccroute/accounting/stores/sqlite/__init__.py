"""The ledger in an SQLite file, and the budgets that all processes share that have the file.

SQL is in `tables`, `columns`, `sums` and `accounts`. Only `files` opens a file, and only `processes` looks at
other processes.
"""
