"""Alembic's entry: runs the steps on the connection it is handed."""

from alembic import context

from agent._rows import METADATA

connection = context.config.attributes["connection"]
connection.exec_driver_sql("BEGIN IMMEDIATE")
context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=False, render_as_batch=True)
context.run_migrations()
connection.exec_driver_sql("COMMIT")
