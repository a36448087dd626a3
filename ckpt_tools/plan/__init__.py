"""The restore plan: what each variable of a net will get from a source, and why.

`rows.py` says what a plan is, `rules.py` what decides it, `making.py` makes one, `missing.py`, `conflicts.py` and
`idle.py` explain what is in the way, `suggest.py` proposes the options that would clear it, `text.py` prints it.
"""

from ..adaptation import Adaptation
from .making import make_plan
from .origin import InFile, Origin
from .rows import ACTIONS, RESTORING, Conflict, Plan, Row, Variable
from .rules import PlanRules

__all__ = [
    "ACTIONS",
    "RESTORING",
    "Adaptation",
    "Conflict",
    "InFile",
    "Origin",
    "Plan",
    "PlanRules",
    "Row",
    "Variable",
    "make_plan",
]
