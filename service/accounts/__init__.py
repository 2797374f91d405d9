"""Accounts: prepaid credit, the keys that spend it, and the limits on them.

    admission ──► batches ──► store ──► decisions       one transaction for what arrives together
                                 │          ├─ rates    limits over time
                                 │          └─ rows     what is stored, and what can be asked
                              statements                what is read and written, for
                              sqlite, postgres          each engine; tables in schema
                                        ├─ postgres_statements
                                        └─ pipeline     few round trips

    work          steps that a thread can do or an event loop: how batches reach the store
    money         prices and bounds, in integer nano-credits
    usage         sums of the ledger by hour, which grow with it
    gathered      what callers ask for at the same time, as one query or one flush
    keys, ids     API keys, and the names of holds
    journal       settlements that wait for the store
    housekeeping  is the store there, whose lease ran out, what is old
    migrations/   the tables over time

    servicer ─┐                  ┌─ inputs, messages, pages   values, protos, page tokens
    credits ──┼─► access ─► directory                         accounts, keys, ledger, usage
    commands ─┘                  └─ tables                    for people

The rules that hold after every transaction: a balance equals the sum of its ledger; nothing is
negative; what is held equals the open holds; a hold ends once.
"""
