"""The ledger: balances, holds, charges and limits, over one SQL store.

    batches -> store -> decisions        one transaction for operations that arrive together

    decisions     the operations, as pure functions on rows
    rate_limits   limits over time
    budgets       limits of what is spent in a window of time
    rows          stored rows and operations, as values
    database      the interface of a database, in a thread or on an event loop
    sqlite, postgres    the databases; schema has the tables
    statements, sqlite_statements, postgres_statements    the SQL of a batch
    pipeline      libpq's pipeline mode
    usage         usage totals by hour
    coalescing    merges simultaneous queries or flushes into one
    ids           the ids of holds
    entry_events  the events of an entry
    outbox        events that wait to be sent
    journal       settlements that wait for the store
    housekeeping  checks the store, replays the journal, expires and prunes holds
    migrations/   the changes of the tables over time

After every transaction, each balance equals the sum of its ledger entries, no amount is negative,
the held amount equals the sum of the open holds, and each hold ends at most once.
"""
