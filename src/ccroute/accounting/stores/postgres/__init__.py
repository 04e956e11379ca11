"""The ledger in PostgreSQL: rows wait in a journal, an SQLite file, until a thread has shipped them.

Knows psycopg and the journal's file; must not know calls or routers.
"""
