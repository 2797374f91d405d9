"""Alembic's entry point: runs the revisions on a given connection, in its transaction."""

from alembic import context

from service.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,  # the caller has begun the transaction
)
context.run_migrations()
