"""A state machine of accounts: random operations, one after the other.

    drawing -> operations -> tables.apply -> decide           under test
                          -> Specification.follow             the expected outcome of each

    cast           the accounts, keys and processes, and times
    tables         the store's way with `decide`, without SQL: only the rows that the operations
                   name are read, and only what `Changes` names is written
    stored_tables  the same on a store, SQLite or PostgreSQL
    drawing        operations from random bytes
    rates          what limits per minute allow
    budget_books   what budgets allow
    told_events    the events that entries should have
    specification  the expected outcomes
    machine        the rules and the invariants
    __main__       `make machine`: many steps, on each engine

The specification keeps no totals and shares no code with the product: held amounts, running calls,
and what is spent of a budget are counted anew from all holds and entries there ever were.
"""
