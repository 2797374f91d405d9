"""Exactly-once inference: calls with the same idempotency key share one run and one charge.

    completions       joins the run of a key, or starts one
    runs              one run: places the hold, calls the upstream, outlives its callers for a while
    logs              its messages in memory, for all of its callers
    recording         what the settlement of the run stores
    answer_form       the stored form of an answer
    idempotency_keys  keys, digests and resume tokens
    upkeep            renews the claims of runs, and deletes expired answers

`service.ledger.claims` decides who has a key. A call without a key touches none of this.
"""
