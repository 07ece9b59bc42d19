import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor, folded, same
from core.config import ChoiceAnswer, NumberAnswer, PatternAnswer, TextAnswer
from core.errors import ConfigError

number = extractor(NumberAnswer())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 1,200.0 apples", "1200"),
        ("17+26=43. 43+24=67. The answer is 67.", "67"),
        ("+7", "7"),
        ("\u22125 degrees", "-5"),
        ("17-5", "5"),
        ("x=(2)-5", "5"),
        ("= -5", "-5"),
        ("007.50", "7.5"),
        ("-0.0", "0"),
        ("costs $.5", "0.5"),
        ("12,3456", "3456"),
        ("1,2,3", "3"),
        ("12,345,678.90 in all", "12345678.9"),
        ("H2O and x12", None),
        ("none", None),
        ("", None),
        (r"first 3, then \boxed{1{,}200} as in line 9", "1200"),
        (r"\boxed{\text{about } 12} then \boxed{5 \text{ kg}}", "5"),
        (r"\boxed{\frac{3}{4}}", None),
        (r"\boxed{8} and then \boxed{", "8"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_the_last_number_is_the_answer_in_canonical_form(text: str, answer: str | None) -> None:
    assert number(text) == answer


@given(st.integers(), st.integers(0, 4))
def test_every_way_to_write_an_integer_gives_the_same_answer(value: int, zeros: int) -> None:
    written = f"{value:,}" + ("." + "0" * zeros if zeros else "")
    assert number(f"The total is {written}") == str(value)
    assert same(written, str(value))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6))
def test_a_canonical_number_is_its_own_canonical_form_and_keeps_its_value(value: object) -> None:
    answer = number(f"{value:f}")
    assert answer is not None and number(answer) == answer
    assert float(answer) == float(str(value))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (B).", "B"),
        ("the answer is: C", "C"),
        ("A dog, so D", "D"),
        ("A dog", None),
        ("It is not (A) but (E)", "E"),
        ("b", "B"),
        (" (c). ", "C"),
        (r"\boxed{D} although A", "D"),
        (r"\boxed{\text{D}}", "D"),
        (r"\boxed{12}", None),
        ("The answer is A because B is too small", "A"),
        ("BAD CAFE", None),
        ("", None),
    ],
)
def test_the_option_named_is_the_answer(text: str, answer: str | None) -> None:
    assert extractor(ChoiceAnswer())(text) == answer


@pytest.mark.parametrize("choices", ["", "AA", "Aa", "A B", "A-"])
def test_choices_that_are_no_set_of_letters_are_refused(choices: str) -> None:
    with pytest.raises(ConfigError, match=r"method\.answer\.choices"):
        extractor(ChoiceAnswer(choices=choices))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("17+26=43. The answer is 43.", "43"),
        ("The answer is -4", "-4"),
        ("The answer is 043. \n", "43"),
        ("The answer is 43 apples.", None),
        ("The answer is 4. The answer is 5.", "5"),
        ("43", None),
    ],
)
def test_the_default_pattern_reads_the_embedded_models_answers(text: str, answer: str | None) -> None:
    assert extractor(PatternAnswer())(text) == answer


def test_a_pattern_takes_its_last_match_and_an_empty_group_is_no_answer() -> None:
    assert extractor(PatternAnswer(pattern=r"=> (\w+)"))("=> Yes, => No") == "no"
    assert extractor(PatternAnswer(pattern=r"=> (\w*)"))("=> ") is None
    assert extractor(PatternAnswer(pattern=r"a|(b)"))("b a") is None


@pytest.mark.parametrize(("pattern", "why"), [("(", "not a regular expression"), (r"\d+", "no group")])
def test_a_pattern_that_cannot_work_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        extractor(PatternAnswer(pattern=pattern))


def test_free_text_is_compared_without_case_punctuation_and_spacing() -> None:
    text = extractor(TextAnswer())
    assert text(" The  Eiffel-Tower! ") == text("the eiffel tower") == "the eiffel tower"
    assert text("x = 1,000.0") == text("X=1000")
    assert text("5 apples") != text("-5 apples")
    assert text("x > 3") != text("x < 3")
    assert text(" \n") is None
    assert text("?!") == "?!"


def test_no_answer_is_the_same_as_nothing() -> None:
    assert not same(None, None)
    assert not same(None, "5")
    assert same("B", "b") and same("1,200", "1200.0")


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF)))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(st.sampled_from([NumberAnswer(), ChoiceAnswer(), PatternAnswer(), TextAnswer()]), st.text())
def test_any_text_at_all_has_an_answer_or_none(config: NumberAnswer | TextAnswer, text: str) -> None:
    answer = extractor(config)(text)
    assert answer is None or (answer != "" and same(answer, answer))
