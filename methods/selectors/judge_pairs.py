"""Makes pairs of judgements: the one that won most comparisons above the one that won least."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import History, Tuned
from methods.elo import place_weights, ratings, wins
from methods.judge_prompts import JudgePrompt
from methods.rows import example, row
from methods.scorers.judge import stored
from methods.scorers.meta_judge import battles, least_sure, readable
from methods.selectors.extremes import extremes

FIRST = "first_wins"
"""The part of the comparisons that the judgement placed first won, over the last window."""


@dataclass(frozen=True)
class JudgePairs:
    """One pair for each prompt whose judgements were compared, by their ratings with the tuned weights of places."""

    method: str
    form: JudgePrompt
    max_chosen: int | None = None
    """Greatest number of characters of the chosen judgement; a longer one gives no pair."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        one = least_sure(history.groups)
        held = battles(self.form, one, stored(history.groups)) if one is not None else []
        if one is None or not held:
            return []
        players = readable(one)
        first = history.tuned.get(FIRST, 0.5)
        rated = ratings(wins(len(players), held, place_weights(first, 1 - first)))
        pair = extremes([round(each, 9) for each in rated])  # equal ratings differ by rounding
        if pair is None:
            return []
        chosen, rejected = (players[place] for place in pair)
        if self.max_chosen is not None and len(chosen.text) > self.max_chosen:
            return []
        return [example(self.method, one.group, [chosen, rejected], [row(chosen), row(rejected)])]

    def measure(self, scored: Sequence[Scored], tuned: Tuned) -> dict[str, float]:
        """How often the place decides."""
        one = least_sure(scored)
        held = battles(self.form, one, stored(scored)) if one is not None else []
        return {FIRST: sum(battle.first_won for battle in held) / len(held)} if held else {}
