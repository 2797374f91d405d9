"""Accounts and API keys, as operators and callers see them.

account_servicer -> store_access -> operations -> directory -> ledger
commands         ----------------> operations -> directory -> ledger
credit_servicer  -> store_access -> directory -> ledger

operations    the operators' operations, shared by RPCs and commands
directory     accounts, keys, ledger entries and usage, as rows
messages      the same, as messages of the contract
field_rules, page_tokens   the valid values of fields, and positions in lists
store_commands, terminal   commands on a whole store; the output of commands
verification  checks the stored balances against the ledger
export, months, export_command   the usage of a month, for billing systems
event_commands   events that wait, and dead letters
bootstrap     the account that the settings create
keys          creates and digests API keys
"""
