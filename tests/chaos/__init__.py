"""Workers and MCP servers are killed, the database goes away, many requests run: then the ledger must be the bill.

`make chaos` runs it at length (`python -m tests.chaos`); `tests/system/test_chaos.py` is the short form.
"""
