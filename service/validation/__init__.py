"""Rules for requests, as tables, and the functions that apply them.

survey        what a request has, for several rules
contract      the limits of OpenAI's contract
aliases       misspellings that an upstream can read as a member of the contract
entry_counts  limits on the number of messages, parts and tools
other_forms   other forms of members that frameworks send
tool_names    which names of tools a model accepts
members       which members beyond the contract a model accepts
dialects      the members that upstreams add to the contract

survey_of(params)              -> the names of what it has
crowd(params)                  -> None, or the violation of a member with too many entries
in_contract_form(params)       -> the parameters that rules and prices read
violations(params, streamed=…) -> [] or the first violations, in the order of the tables
unaccepted(params, model)      -> [] or the first names of tools that the model rejects
refused(params, model)         -> [] or the first members that the model rejects
take_out_what_says_nothing(params, model)    removes rejected members that are empty or false
"""

from service.validation.contract import OPEN, violations
from service.validation.entry_counts import crowd
from service.validation.members import refused, take_out_what_says_nothing
from service.validation.other_forms import in_contract_form
from service.validation.survey import UNTYPED, survey_of
from service.validation.tool_names import unaccepted

__all__ = [
    "OPEN",
    "UNTYPED",
    "crowd",
    "in_contract_form",
    "refused",
    "survey_of",
    "take_out_what_says_nothing",
    "unaccepted",
    "violations",
]
