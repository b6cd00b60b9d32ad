"""Postgres, the only truth. Nothing outside this package imports asyncpg or holds SQL."""
