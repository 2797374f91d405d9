"""The ledger: balances, holds, charges and limits, over one SQL store.

    batches ──► store ──► decisions                one transaction for what arrives together
                  │          ├─ rates              limits over time
                  │          └─ rows               what is stored, and the operations
              statements                           what is read and written, for each engine
              sqlite, postgres                     the engines; the tables are in schema
                          ├─ postgres_statements
                          └─ pipeline              few round trips

    steps         work that a thread or an event loop can run: how batches reach the store
    usage         totals of the ledger by hour, which grow with it
    coalescing    simultaneous questions, asked as one query or one flush
    ids           the names of holds
    journal       settlements that wait for the store
    housekeeping  is the store there, whose lease expired, what is old
    migrations/   the tables over time

After every transaction, a balance equals the sum of its ledger entries, nothing is negative, the
held amount equals the open holds, and a hold ends once.
"""
