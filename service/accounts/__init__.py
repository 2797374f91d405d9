"""Accounts and API keys, as operators and callers see them; the money is in the ledger.

account_servicer ─┐                        ┌─ field_rules    values that operators give
credit_servicer ──┼─► store_access ─► directory ─► ledger  accounts, keys, ledger entries, usage
commands ─────────┘                        └─ messages, page_tokens, text_tables  as text

views         what the directory returns
verification  whether what is stored agrees with the ledger
bootstrap     the account that the settings create
keys          API keys: made, digested
"""
