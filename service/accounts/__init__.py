"""Accounts and API keys, as operators and callers see them; the money is in the ledger.

account_servicer ─► store_access ─┐
commands ─────────────────────────┴─► operations ─┬─► directory ─► ledger
credit_servicer ──► store_access ─────────────────┘

operations    what operators do, once for RPCs and commands
directory     accounts, keys, ledger entries and usage, as rows
messages      the same, as messages of the contract
field_rules, page_tokens   what operators can give, and where a list continues
store_commands, terminal   commands on a store as a whole; what commands print
verification  whether what is stored agrees with the ledger
bootstrap     the account that the settings create
keys          API keys: made, digested
"""
