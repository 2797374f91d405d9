"""What a request may hold: tables of rules, and functions that look at them.

contract  the limits of OpenAI's contract
aliases   names that an upstream may take for those of the contract
crowds    too much of anything to look at the rest
members   which members beyond the contract pass for a model
dialects  the members that upstreams add to the contract

crowd(params)                  ──► None, or what there is too much of to look at the rest
violations(params, streamed=…) ──► [] or the first violations, in the order of the tables
refused(params, model)         ──► [] or the first members that do not pass for the model
take_out_what_says_nothing(params, model)     refused members that are empty or false
"""

from service.validation.contract import OPEN, violations
from service.validation.crowds import crowd
from service.validation.members import refused, take_out_what_says_nothing

__all__ = ["OPEN", "crowd", "refused", "take_out_what_says_nothing", "violations"]
