"""Changes of the tables from version to version, as Alembic runs them; ``virmo_server.migrate`` is the way in."""
