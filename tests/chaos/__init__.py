"""Workers are killed and the database goes away while many requests run; then the ledger must agree with the bill.

`make chaos` runs it at length (`python -m tests.chaos`); `tests/system/test_chaos.py` is the short form.
"""
