"""What can go wrong with an evaluation."""


class EvaluationError(Exception):
    """An evaluation cannot be run or read; the message says why."""


class BudgetExceededError(EvaluationError):
    """An attack asked more about an image than its budget allows; the attack is wrong."""
