"""How alembic runs our migrations: on the connection, and in the transaction, that Database.upgrade opened.

To write a migration, change `storage/tables.py` and add `versions/NNNN_what.py` from `script.py.mako`; the
test that compares both says what is missing.
"""

from alembic import context

from aibridge.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
