"""Rules for requests, as tables, and the functions that apply them.

contract      the limits of OpenAI's contract
aliases       misspellings that an upstream can read as a member of the contract
entry_counts  limits on the number of messages, parts and tools
members       which members beyond the contract a model accepts
dialects      the members that upstreams add to the contract

crowd(params)                  -> None, or the violation of a member with too many entries
violations(params, streamed=…) -> [] or the first violations, in the order of the tables
refused(params, model)         -> [] or the first members that the model rejects
take_out_what_says_nothing(params, model)    removes rejected members that are empty or false
"""

from service.validation.contract import OPEN, violations
from service.validation.entry_counts import crowd
from service.validation.members import refused, take_out_what_says_nothing

__all__ = ["OPEN", "crowd", "refused", "take_out_what_says_nothing", "violations"]
