"""Tasks of `prompts.kind: words`: a list of words in `methods/data/words/`, and here how to ask for them."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from core.config import PatternAnswer
from core.errors import ConfigError
from methods.data.task_items import Item, Task
from methods.data.text import nearest

FOLDER = Path(__file__).parent / "words"
SHOTS = 4
MAX_TOKENS = 20
_NAME = r"[^\W\d_][\w.'-]*(?: [\w.'-]+){0,2}?"


def _at_end(words: str, lead: str = "is") -> str:
    """Matches a single line that is the answer, or a sentence that ends with it."""
    return rf"""(?i)^(?:.*\b(?:{lead})\b:? )?["'*]*(?:(?:the|an?) )?["'*]*({words})\W*$"""


@dataclass(frozen=True)
class Words:
    phrasings: tuple[str, ...]
    """With `{word}`. Shots use the first."""
    reply: str
    """An answer as the model is to write it, with `{word}` and `{answer}`."""
    shots: tuple[str, ...]
    """Words of the list, with as many different answers or rules as there are."""
    pattern: str
    said: dict[str, str] = field(default_factory=dict[str, str])
    """Answers that are written in another form in a sentence."""
    pairs: bool = False
    """The answer is itself a word of the list: both are one item."""


WORDS = {
    "kinds": Words(
        (
            "Is {word} an animal, food, a vehicle or clothing?",
            "What is {word}: an animal, food, a vehicle or clothing?",
            "Tell me whether {word} is an animal, food, a vehicle or clothing.",
            "Which one is {word}: animal, food, vehicle or clothing?",
        ),
        "{word} is {answer}.",
        ("a cow", "a tram", "soup", "a sock"),
        _at_end("animal|food|vehicle|clothing", "is|is a kind of|is a type of|is a piece of|is an item of"),
        {"animal": "an animal", "vehicle": "a vehicle"},
    ),
    "opposites": Words(
        (
            "What is the opposite of {word}?",
            "Which word means the opposite of {word}?",
            "Name the antonym of {word}.",
            "{word} is the opposite of which word?",
        ),
        "The opposite of {word} is {answer}.",
        ("hot", "up", "rich", "possible"),
        _at_end(_NAME),
        pairs=True,
    ),
    "plurals": Words(
        (
            "What is the plural of {word}?",
            "Write the plural form of {word}.",
            "What do you call more than one {word}?",
            "What is the word for several of {word}?",
        ),
        "The plural of {word} is {answer}.",
        ("cat", "box", "city", "foot"),
        _at_end(_NAME),
    ),
    "past": Words(
        (
            "What is the past tense of {word}?",
            "Write the verb {word} in the past tense.",
            "What is the simple past of the verb {word}?",
            "How do you say {word} if it happened yesterday?",
        ),
        "The past tense of {word} is {answer}.",
        ("walk", "stop", "try", "go"),
        _at_end(_NAME),
    ),
    "comparatives": Words(
        (
            "What is the comparative of {word}?",
            "Write the comparative form of {word}.",
            "Which single word means more {word}?",
            "What is one word for more {word} than before?",
        ),
        "The comparative of {word} is {answer}.",
        ("tall", "big", "happy", "nice"),
        _at_end(_NAME),
    ),
    "capitals": Words(
        (
            "What is the capital of {word}?",
            "Which city is the capital of {word}?",
            "Name the capital city of {word}.",
            "What is the name of the capital of {word}?",
        ),
        "The capital of {word} is {answer}.",
        ("France", "Japan", "Egypt", "Texas"),
        _at_end(_NAME),
    ),
    "continents": Words(
        (
            "On which continent is {word}?",
            "Which continent is {word} on?",
            "Name the continent where {word} is.",
            "What continent does {word} belong to?",
        ),
        "{word} is in {answer}.",
        ("Spain", "Kenya", "Japan", "Peru"),
        r"(?i)\b(Africa|Asia|Europe|North America|South America)\W*$",
    ),
    "cities": Words(
        (
            "In which country is {word}?",
            "Which country is the city of {word} in?",
            "Name the country where {word} is.",
            "{word} is a city in which country?",
        ),
        "{word} is in {answer}.",
        ("Paris", "Tokyo", "Cairo", "Toronto"),
        _at_end(_NAME, "is|in"),
    ),
}


def task(name: str) -> Task:
    """Raises: ConfigError that names the nearest lists, if there is none of this name."""
    if name not in WORDS:
        raise ConfigError(
            f"prompts.task={name!r} is no word list; nearest: {nearest(name, WORDS)} (there are: {', '.join(WORDS)})"
        )
    words, answers = WORDS[name], listed(name)
    items = [_item(words, word, answer) for word, answer in answers.items()]
    shots = tuple((_question(words.phrasings[0], word), _reply(words, word, answers[word])) for word in words.shots)
    return Task(_without(items, words, answers), shots, PatternAnswer(pattern=words.pattern), MAX_TOKENS)


@cache
def listed(name: str) -> dict[str, str]:
    """Word -> answer, as the file has it."""
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="ascii").splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("#"))


def _without(items: list[Item], words: Words, answers: dict[str, str]) -> list[Item]:
    """The items that have no key in common with a shot."""
    shown = {_item(words, word, answers[word]).key for word in words.shots}
    return [item for item in items if item.key not in shown]


def _item(words: Words, word: str, answer: str) -> Item:
    key = " ".join(sorted((word, answer))) if words.pairs else word
    return Item(key, tuple(_question(phrasing, word) for phrasing in words.phrasings), answer)


def _question(phrasing: str, word: str) -> str:
    return _capital(phrasing.format(word=word))


def _reply(words: Words, word: str, answer: str) -> str:
    return _capital(words.reply.format(word=word, answer=words.said.get(answer, answer)))


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
