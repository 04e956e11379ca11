"""The ledger in an SQLite file, and the budgets that all processes share that have the file.

Only `files` opens a file, only `processes` looks at other processes; SQL is in `tables`, `schema`, `sums` and
`accounts`.
"""
