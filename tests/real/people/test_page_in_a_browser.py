"""The status page in a browser: display, questions and votes."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.messages import Feedback, Response, Vote
from core.store.writer import RunReader
from tests.page_server import EVIL, PageServer, event
from tests.real.conftest import Run
from tests.real.people.conftest import SHOP

api = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 20_000
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: `apt-get install chromium` brings it"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["api.Browser"]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture
def page(browser: "api.Browser") -> Iterator["api.Page"]:
    """A page that fails the test on any script error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    api.expect.set_options(timeout=WAIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def ask(page: "api.Page", question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_label("Your question").press("Enter")
    page.locator(".ballot").last.wait_for()


def test_slots_headline_and_curve_are_drawn(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.get_by_role("heading", level=1)).to_have_text("Version 7 answers users")
    api.expect(page.locator("#rests-on")).to_contain_text("not evidence of improvement (188 probes)")
    gained = re.compile("right on 66.1% of the report.s questions, the base 33.7%")
    api.expect(page.locator("#rests-on")).to_contain_text(gained)
    api.expect(page.locator(".slot b")).to_have_text(["v7", "v8", "v5", "v8"])
    api.expect(page.locator(".slot.champion .chip")).to_have_text("guarded")
    curve = page.get_by_role("img", name="accuracy by version: 8 versions, from 33.7% of v0 to 66.1% of v7")
    api.expect(curve.locator(".mark.promote")).to_have_count(4)
    api.expect(curve.locator(".mark.reject")).to_have_count(1)
    api.expect(curve.locator(".mark.hold")).to_have_count(1)
    page.get_by_text("All versions as a table").click()
    api.expect(page.get_by_role("row", name="v3 rejected guarded 96")).to_be_visible()
    api.expect(page.locator(".replicas li")).to_have_count(2)


def test_a_serving_mode_shows_its_hidden_work_and_what_it_cost(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.locator("#model option")).to_have_text(["policy", "policy:vote", "policy@v0", "policy@v5"])
    page.get_by_label("answered by").select_option("policy:vote")
    ask(page, "How many?")
    assert server.asked[0]["model"] == "policy:vote" and server.asked[0]["vote"] == {"show": True}
    page.get_by_text("hidden work").click()
    api.expect(page.locator(".aside pre")).to_contain_text("5 of 8 <b>samples</b>")
    api.expect(page.locator(".by")).to_contain_text("; 7 samples, 86% agree")
    api.expect(page.locator(".answer")).to_contain_text("The answer is 47.")
    page.get_by_label("answered by").select_option("policy")
    ask(page, "And now?")
    assert "vote" not in server.asked[1] and page.locator(".aside").count() == 1


def test_monitors_are_shown_if_any_was_measured(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    card = page.get_by_role("region", name="What warns early")
    api.expect(card.get_by_role("row")).to_have_count(2)
    api.expect(card.get_by_role("row", name="right in any format")).to_contain_text("71.1%first 38.7%")
    api.expect(card.get_by_role("row", name="entropy of the answers")).to_contain_text("3.44 nats")
    assert isinstance(server.overview, dict)
    server.overview = {
        **server.overview,
        "versions": [
            {**row, "monitors": {"gap": -0.02} if row["version"] else {}} for row in server.overview["versions"]
        ],
    }
    api.expect(card.get_by_role("row", name="what the vote gains")).to_contain_text("\N{MINUS SIGN}2.0 points")
    server.overview = {
        **server.overview,
        "versions": [{**row, "monitors": {}} for row in server.overview["versions"]],
    }
    api.expect(card).to_be_hidden()


def test_without_accuracy_the_curve_says_what_it_shows(page: "api.Page", server: PageServer) -> None:
    assert isinstance(server.overview, dict)
    bare = [{**row, "accuracy": None, "low": None, "high": None} for row in server.overview["versions"]]
    server.overview = {**server.overview, "versions": bare}
    page.goto(server.url)
    api.expect(page.get_by_role("img", name="agreement with anchors by version")).to_be_visible()
    api.expect(page.locator("#curve-says")).to_contain_text("not evidence of improvement")


def test_an_event_and_a_pause_arrive_live(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.locator("#connection")).to_have_text("live")
    assert isinstance(server.overview, dict)
    news = event(9, 52, "rolled_back", "v7 rolled back by the watch: <b>worse</b>; v5 is served")
    held = {"by": "ann", "why": "an audit", "at": 1795278883.0}
    changed = {"events": [*server.overview["events"], news], "paused": "by hand", "held": held}
    server.overview = {**server.overview, **changed}
    api.expect(page.locator("#events li").first).to_contain_text("the watch: <b>worse</b>; v5 is served")
    api.expect(page.locator("#banners .banner")).to_have_count(2)
    api.expect(page.locator("#banners")).to_contain_text("Serving is held at v7 by ann")
    api.expect(page.locator("#banners")).to_contain_text("Learning is paused: by hand")


def test_tokens_per_second_come_from_totals(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.locator("#rates tr")).to_have_count(4)
    assert isinstance(server.overview, dict)
    tokens = {**server.overview["tokens"], "users": 5000}
    server.overview = {**server.overview, "tokens": tokens}
    api.expect(page.locator("tr.users .number")).not_to_have_text("0")
    api.expect(page.locator("tr.gate .number")).to_have_text("0")


def test_the_chat_streams_and_names_the_version_and_takes_a_vote(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.get_by_label("answered by").locator("option")).to_have_text(
        ["policy", "policy:vote", "policy@v0", "policy@v5"]
    )
    ask(page, "How many tickets?")
    api.expect(page.locator(".answer")).to_have_text(server.answer + " ")
    api.expect(page.locator(".by")).to_contain_text("v7 answered in")
    assert server.asked[0] == {
        "model": "policy",
        "messages": [{"role": "user", "content": "How many tickets?"}],
        "stream": True,
    }
    page.get_by_role("button", name="Good answer").click()
    api.expect(page.locator(".said")).to_have_text("Thank you. Your vote counts.")
    assert server.votes == [{"response_id": "chatcmpl-1", "choice": 0, "binary": True}]
    api.expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")


def test_a_better_answer_is_sent_and_a_refusal_is_shown(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    ask(page, "How many tickets?")
    page.get_by_role("button", name="write a better answer").click()
    page.get_by_label("A better answer").fill("48")
    page.get_by_role("button", name="Send it").click()
    api.expect(page.locator(".said")).to_contain_text("Your vote is kept")
    assert server.votes == [{"response_id": "chatcmpl-1", "choice": 0, "correction": "48"}]
    page.evaluate("document.querySelector('.correction').noValidate = true")
    page.get_by_role("button", name="write a better answer").click()
    page.get_by_label("A better answer").fill("")
    page.get_by_role("button", name="Send it").click()
    api.expect(page.locator(".said")).to_have_text("Your vote was not accepted: the correction is empty; write one")


def test_a_follow_up_takes_the_conversation_along(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    ask(page, "One?")
    page.get_by_label("with the conversation so far").check()
    ask(page, "Two?")
    api.expect(page.locator(".ballot")).to_have_count(2)
    assert [each["role"] for each in server.asked[1]["messages"]] == ["user", "assistant", "user"]


def test_what_a_model_or_a_person_writes_is_text_and_does_not_run(page: "api.Page", server: PageServer) -> None:
    server.answer = EVIL
    assert isinstance(server.overview, dict)
    rows = [{**row, "reason": EVIL} for row in server.overview["versions"]]
    replicas = [{**replica, "name": EVIL, "failed": {"policy@v8": EVIL}} for replica in server.overview["replicas"]]
    news = {"versions": rows, "replicas": replicas, "paused": EVIL, "events": [event(9, 1, "paused", EVIL)]}
    server.overview = {**server.overview, **news, "away": {EVIL: EVIL}}
    page.goto(server.url)
    ask(page, EVIL)
    api.expect(page.locator(".answer")).to_contain_text("<img src=x onerror=")
    api.expect(page.locator("#events")).to_contain_text("<b>bold</b>")
    assert page.locator("img[src='x'], main b:text-is('bold')").count() == 0
    assert page.title() == "Ratchet: v7"


def test_a_lost_connection_is_told_and_found_again_is_too(page: "api.Page", server: PageServer) -> None:
    page.goto(server.url)
    api.expect(page.locator("#connection")).to_have_text("live")
    page.route("**/events", lambda route: route.abort())
    api.expect(page.locator("#connection")).to_have_text("connection lost, trying again")
    page.unroute("**/events")
    api.expect(page.locator("#connection")).to_have_text("live")


def test_a_server_that_asks_for_a_key_gets_one(page: "api.Page") -> None:
    with PageServer(key="sesame") as server:
        page.goto(server.url)
        page.get_by_label("This server requires an API key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        api.expect(page.locator("#key-note")).to_have_text("The server did not accept that key.")
        page.get_by_label("This server requires an API key").fill("sesame")
        page.get_by_role("button", name="Use it").click()
        api.expect(page.locator("#connection")).to_have_text("live")
        api.expect(page.locator("#key")).to_be_hidden()
        ask(page, "How many?")
        api.expect(page.locator(".answer")).to_contain_text("47")


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out_at_the_side(page: "api.Page", server: PageServer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(server.url)
    api.expect(page.locator("#curve svg")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_real_run_the_version_that_answers_is_named_and_the_vote_is_counted(page: "api.Page", run: Run) -> None:
    page.goto(run.url)
    page.get_by_label("This server requires an API key").fill(SHOP)
    page.get_by_role("button", name="Use it").click()
    api.expect(page.locator("#connection")).to_have_text("live")
    api.expect(page.get_by_role("heading", level=1)).to_have_text(
        re.compile(r"^(The base model|Version \d+) answers users$")
    )
    ask(page, "Ida has 9 pens and finds 4 more. How many pens does Ida have?")
    named = re.fullmatch(r"v(\d+) answered in [\d.]+ s", page.locator(".by").inner_text())
    assert named is not None
    page.get_by_role("button", name="Good answer").click()
    api.expect(page.locator(".said")).to_contain_text("Thank you. Your vote")
    with closing(RunReader(run.dir)) as reader:
        said = reader.children("feedback", Feedback, "shop")[-1]
        answered = reader.get("responses", Response, said.response_id)
        assert answered is not None and answered.prompt is not None
        assert answered.start.version == int(named[1])
        assert [text.split() for text in answered.texts] == [page.locator(".answer").inner_text().split()]
        (vote,) = (v for v in reader.children("votes", Vote, answered.prompt.id) if v.by == "person")
        assert vote.response_id == said.response_id and vote.weight > 0 and vote.counted
        deadline = time.monotonic() + 120
        while not (explored := [o for o in reader.outcomes() if o.prompt_id == answered.prompt.id]):
            assert time.monotonic() < deadline, "a voted prompt was never explored"
            time.sleep(1)
    assert explored[0].revision == 1, "the ballot does not have the vote"
