"""What a request may hold: tables of rules, and functions that look at them.

contract  the limits of OpenAI's contract
crowds    too much of anything to look at the rest
aliases   names that an upstream may take for those of the contract
members   members that are not of the contract, or that an operator refuses

crowd(params)                  ──► None, or what there is too much of to look at the rest
violations(params, streamed=…) ──► [] or the first violations, in the order of the tables
refused(params, model)         ──► [] or the members that an operator refuses
"""

from service.validation.contract import OPEN, violations
from service.validation.crowds import crowd
from service.validation.members import refused

__all__ = ["OPEN", "crowd", "refused", "violations"]
