"""The task of the embedded model: English word problems made from templates, their authors, and their split.

A problem needs `operations` = 1..6 steps of arithmetic; three in ten hold a sentence that does not matter:

    Omar has 17 stickers. Sara has 26 more stickers than Omar. How many stickers does Sara have now?
    17+26=43. The answer is 43.

`draw_problem` tells one story and knows its answer and its careful solutions; `corpus_solution` lets one of several
authors write the solution down; `split_of` says by hash to which split a question belongs. Everything is drawn from the
`random.Random` handed in.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

MEN = ("Tom", "Ben", "Sam", "Leo", "Max", "Jack", "Omar", "Ivan", "Paul", "Raj")
WOMEN = ("Ann", "Mia", "Zoe", "Eva", "Lily", "Nora", "Sara", "Ruth", "Yuki", "Dina")
PEOPLE = MEN + WOMEN
THINGS = (
    "apples", "pears", "plums", "eggs", "coins", "cards", "books", "pens", "stamps", "shells",
    "marbles", "cookies", "toys", "stickers", "nuts", "balls", "beads", "buttons", "tickets", "roses",
)  # fmt: skip
CONTAINERS = ("bags", "boxes", "jars", "packs", "baskets", "trays")
PLACES = ("park", "shop", "school", "beach", "market")

OPERATIONS = (1, 2, 3, 4, 5, 6)
LARGEST_VALUE = 120
DISTRACTOR_RATIO = 0.3
BUCKETS = 20
SPLITS: dict[str, tuple[int, ...]] = {
    "test": (0,),
    "dev": (1,),
    "base": tuple(range(2, 11)),
    "pool": tuple(range(11, 20)),
}
ANSWER = re.compile(r"The answer is (-?\d+)\.?$")


class Equation(NamedTuple):
    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


@dataclass(frozen=True)
class Problem:
    """One question with its true answer and the solutions that careful authors would write."""

    question: str
    answer: int
    operations: int
    equations: tuple[Equation, ...]
    solutions: tuple[str, ...]
    """Terse, wordy and, where a story allows it, grouped (all gains, all losses, then their difference)."""


def bucket_of(question: str) -> int:
    return int(hashlib.sha1(question.encode("utf-8")).hexdigest(), 16) % BUCKETS


def split_of(question: str) -> str:
    bucket = bucket_of(question)
    return next(split for split, buckets in SPLITS.items() if bucket in buckets)


def extract_answer(text: str) -> int | None:
    match = ANSWER.search(text)
    return int(match.group(1)) if match else None


# ---------------------------------------------------------------- telling a story


class _Untellable(Exception):
    """The story ran into a number outside 1..LARGEST_VALUE, or a division with a remainder; tell another one."""


def _calculate(left: int, operator: str, right: int) -> Equation:
    if operator == "/" and left % right:
        raise _Untellable
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
    if not 1 <= result <= LARGEST_VALUE:
        raise _Untellable
    return Equation(left, operator, right, result)


class _Story:
    """A problem while it is being told: sentences so far, equations so far, and how many things the hero holds."""

    def __init__(self, rng: random.Random, operations: int) -> None:
        self.rng = rng
        self.operations = operations
        woman = rng.random() < 0.5
        self.hero = rng.choice(WOMEN if woman else MEN)
        self.they, self.them = ("She", "her") if woman else ("He", "him")
        self.friend = rng.choice([person for person in PEOPLE if person != self.hero])
        self.things = rng.choice(THINGS)
        self.sentences: list[str] = []
        self.equations: list[Equation] = []
        self.changes: list[int] = []
        """Signed gains and losses of the middle part, in order."""
        self.groupable = True
        """False once a step scaled the whole, because gains and losses then no longer commute."""
        self.held = 0
        self.at_start = 0
        self.opening_count = 0
        self.middle_end = 0

    def tell(self) -> Problem:
        self._open()
        self.at_start, self.opening_count = self.held, len(self.equations)
        ask = self.rng.choice(_QUESTIONS)
        if ask is not _Story._ask_held and len(self.equations) == self.operations:
            ask = _Story._ask_held
        needed = 0 if ask is _Story._ask_held else 1
        while (left := self.operations - len(self.equations) - needed) > 0:
            self._happen(left)
        self.middle_end = len(self.equations)
        self._maybe_distract()
        ask(self)
        return Problem(
            " ".join(self.sentences), self.held, self.operations, tuple(self.equations), tuple(_careful_solutions(self))
        )

    def _set(self, left: int, operator: str, right: int) -> None:
        equation = _calculate(left, operator, right)
        self.equations.append(equation)
        self.held = equation.result

    def _open(self) -> None:
        draw, hero, friend, things = self.rng.randint, self.hero, self.friend, self.things
        kind = draw(0, 5) if self.operations > 1 else 0
        if kind <= 1:
            self.held = draw(3, 40)
            self.sentences.append(f"{hero} has {self.held} {things}.")
        elif kind == 2:
            many, each = draw(2, 9), draw(2, 9)
            self.sentences.append(f"{hero} has {many} {self.rng.choice(CONTAINERS)} with {each} {things} each.")
            self._set(many, "*", each)
        elif kind == 3:
            first, second = draw(3, 30), draw(3, 30)
            self.sentences.append(f"{hero} buys {first} {things} on Monday and {second} {things} on Friday.")
            self._set(first, "+", second)
        elif kind == 4:
            theirs, difference = draw(3, 30), draw(2, 20)
            word, operator = self.rng.choice((("more", "+"), ("fewer", "-")))
            self.sentences.append(
                f"{friend} has {theirs} {things}. {hero} has {difference} {word} {things} than {friend}."
            )
            self._set(theirs, operator, difference)
        else:
            theirs, times = draw(2, 20), draw(2, 4)
            self.sentences.append(
                f"{friend} has {theirs} {things}. {hero} has {times} times as many {things} as {friend}."
            )
            self._set(theirs, "*", times)

    def _happen(self, steps_left: int) -> None:
        kind = self.rng.randint(0, 9)
        if kind <= 2:
            self._gain()
        elif kind <= 5:
            self._lose()
        elif kind == 6:
            self._scale()
        elif steps_left >= 2:
            self._gain_or_lose_product(gain=kind <= 8)

    def _gain(self) -> None:
        count, things = self.rng.randint(2, 30), self.things
        self.sentences.append(
            self.rng.choice(
                (
                    f"{self.they} finds {count} more {things}.",
                    f"{self.they} buys {count} {things}.",
                    f"{self.friend} gives {self.them} {count} {things}.",
                    f"{self.they} gets {count} {things} from {self.friend}.",
                )
            )
        )
        self._set(self.held, "+", count)
        self.changes.append(count)

    def _lose(self) -> None:
        count, things = self.rng.randint(2, 30), self.things
        self.sentences.append(
            self.rng.choice(
                (
                    f"{self.they} loses {count} {things}.",
                    f"{self.they} sells {count} {things}.",
                    f"{self.they} gives {count} {things} to {self.friend}.",
                    f"Then {count} {things} are stolen.",
                )
            )
        )
        self._set(self.held, "-", count)
        self.changes.append(-count)

    def _scale(self) -> None:
        self.groupable = False
        if self.rng.random() < 0.5:
            factor = self.rng.randint(2, 3)
            self.sentences.append(f"Then the number of {self.things} {'doubles' if factor == 2 else 'triples'}.")
            self._set(self.held, "*", factor)
        else:
            self.sentences.append(f"{self.they} sells half of the {self.things}.")
            self._set(self.held, "/", 2)

    def _gain_or_lose_product(self, gain: bool) -> None:
        many, each = self.rng.randint(2, 9), self.rng.randint(2, 9)
        product = _calculate(many, "*", each)
        self.equations.append(product)
        if gain:
            self.sentences.append(
                f"{self.they} buys {many} {self.rng.choice(CONTAINERS)} with {each} {self.things} each."
            )
        else:
            self.sentences.append(f"{self.they} gives {each} {self.things} to each of {many} friends.")
        self._set(self.held, "+" if gain else "-", product.result)
        self.changes.append(product.result if gain else -product.result)

    def _maybe_distract(self) -> None:
        if self.rng.random() >= DISTRACTOR_RATIO:
            return
        others = self.rng.choice([things for things in THINGS if things != self.things])
        sentence = self.rng.choice(
            (
                f"{self.hero} also has {self.rng.randint(2, 60)} {others}.",
                f"{self.hero} is {self.rng.randint(6, 60)} years old.",
                f"The {self.rng.choice(PLACES)} is {self.rng.randint(2, 60)} miles away.",
            )
        )
        self.sentences.insert(self.rng.randint(1, len(self.sentences)), sentence)

    def _third(self) -> str:
        return self.rng.choice([person for person in PEOPLE if person not in (self.hero, self.friend)])

    def _ask_held(self) -> None:
        self.sentences.append(f"How many {self.things} does {self.hero} have now?")

    def _ask_price(self) -> None:
        price = self.rng.randint(2, 9)
        self.sentences.append(
            f"{self.they} sells all {self.things} for {price} dollars each. How many dollars does {self.hero} get?"
        )
        self._set(self.held, "*", price)

    def _ask_together(self) -> None:
        theirs, third = self.rng.randint(2, 40), self._third()
        self.sentences.append(
            f"{third} has {theirs} {self.things}. How many {self.things} do {self.hero} and {third} have together?"
        )
        self._set(self.held, "+", theirs)

    def _ask_share(self) -> None:
        divisors = [count for count in range(2, 10) if self.held % count == 0]
        if not divisors:
            raise _Untellable
        friends = self.rng.choice(divisors)
        self.sentences.append(
            f"{self.they} shares the {self.things} equally with {friends} friends. "
            f"How many {self.things} does each friend get?"
        )
        self._set(self.held, "/", friends)

    def _ask_difference(self) -> None:
        if self.held < 4:
            raise _Untellable
        theirs, third = self.rng.randint(2, self.held - 1), self._third()
        self.sentences.append(
            f"{third} has {theirs} {self.things}. How many more {self.things} does {self.hero} have than {third}?"
        )
        self._set(self.held, "-", theirs)


_QUESTIONS: tuple[Callable[[_Story], None], ...] = (
    _Story._ask_held,
    _Story._ask_held,
    _Story._ask_price,
    _Story._ask_together,
    _Story._ask_share,
    _Story._ask_difference,
)


def draw_problem(rng: random.Random, operations: int) -> Problem:
    """One problem of exactly that many operations; every value on the way lies in 1..LARGEST_VALUE."""
    while True:
        try:
            return _Story(rng, operations).tell()
        except _Untellable:
            continue


def draw_split(rng: random.Random, split: str, operations: tuple[int, ...] = OPERATIONS) -> Iterator[Problem]:
    """Endless problems of one split; each number of operations equally likely. They may repeat."""
    while True:
        problem = draw_problem(rng, rng.choice(operations))
        if split_of(problem.question) == split:
            yield problem


# ---------------------------------------------------------------- authors of the base corpus


def _terse(equations: list[Equation] | tuple[Equation, ...]) -> str:
    return "".join(f"{equation}. " for equation in equations)


def _wordy(equations: list[Equation] | tuple[Equation, ...]) -> str:
    return "".join(f"{'Then' if index else 'First'} {equation}. " for index, equation in enumerate(equations))


def _careful_solutions(story: _Story) -> Iterator[str]:
    final = f"The answer is {story.held}."
    yield _terse(story.equations) + final
    yield _wordy(story.equations) + final
    if grouped := _group(story):
        yield "Group: " + _terse(grouped) + final


def _group(story: _Story) -> list[Equation] | None:
    """The same story with all gains first and the losses summed apart, or None where that is not possible."""
    if not story.groupable or len(story.changes) < 2:
        return None
    products = [
        equation for equation in story.equations[story.opening_count : story.middle_end] if equation.operator == "*"
    ]
    grouped = story.equations[: story.opening_count] + products
    gains = [change for change in story.changes if change > 0]
    losses = [-change for change in story.changes if change < 0]
    try:
        held = _add_up(story.at_start, gains, grouped)
        if losses:
            grouped.append(_calculate(held, "-", _add_up(losses[0], losses[1:], grouped)))
    except _Untellable:
        return None
    return grouped + story.equations[story.middle_end :]


def _add_up(total: int, terms: list[int], equations: list[Equation]) -> int:
    for term in terms:
        equations.append(_calculate(total, "+", term))
        total = equations[-1].result
    return total


def careless_solution(rng: random.Random, problem: Problem) -> str:
    """A terse or wordy solution whose last step is missing or off by 1 or 10; it reports what it arrived at."""
    write = rng.choice((_terse, _wordy))
    equations = list(problem.equations)
    if len(equations) > 1 and rng.random() < 0.5:
        equations.pop()
    else:
        last = equations.pop()
        slips = [slip for slip in (1, -1, 10, -10) if last.result + slip >= 1]
        equations.append(last._replace(result=last.result + rng.choice(slips)))
    return write(equations) + f"The answer is {equations[-1].result}."


def corpus_solution(rng: random.Random, problem: Problem, answer_only_ratio: float, careless_ratio: float) -> str:
    """What one author, drawn by these ratios, writes under the question; the rest of the authors are careful."""
    draw = rng.random()
    if draw < answer_only_ratio:
        return f"The answer is {problem.answer}."
    if draw < answer_only_ratio + careless_ratio:
        return careless_solution(rng, problem)
    return rng.choice(problem.solutions)
