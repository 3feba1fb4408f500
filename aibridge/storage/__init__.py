"""Records in a database: the only folder that knows SQLAlchemy and alembic."""
