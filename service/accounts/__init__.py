"""Accounts: prepaid credit, the keys that spend it, and the limits on them.

    admission ──► batches ──► store ──► decisions       one transaction for what arrives together
                                 │          ├─ rates    limits over time
                                 │          └─ rows     what is stored, and what can be asked
                              schema                    SQLite or PostgreSQL
    money      prices and bounds, in integer nano-credits
    keys       making, digesting, remembering API keys
    directory  what operators ask: accounts, keys, ledger, usage
    journal    settlements that wait for the store

The rules that hold after every transaction: a balance equals the sum of its ledger; nothing is
negative; what is held equals the open holds; a hold ends once.
"""
