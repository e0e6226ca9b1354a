# SPDX-License-Identifier: Apache-2.0
"""The explorer's page in a browser: what it shows as the hour is dragged is what Python computes."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from browser import CHROMIUM, NO_BROWSER, Visit, started
from explored import DAY, STEP, Right, Shown, events_of, explorer_of, put_in_place

from longclock.explore.app import create_app
from longclock.explore.page import html_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
HOURS = ("0:00", "8:00", "12:35", "19:20", "23:55")


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    return explorer_of(tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="module")
def users(explorer):
    return [explorer.of_user(user) for user in explorer.users(3)]


@pytest.fixture(scope="module")
def url(tmp_path_factory, explorer, users):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html_of(explorer.of_model(), users))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="playwright is missing: pip install playwright")
    with started() as made:
        yield made


@pytest.fixture
def visit(browser, url):
    made = Visit(browser, url)
    yield made
    made.close()
    assert made.requests == [url]


def second_of(hour):
    hours, minutes = map(int, hour.split(":"))
    return 3600 * hours + 60 * minutes


def drag_to(page, hour):
    """The slider, as a hand moves it."""
    page.locator("#hour").fill(str(second_of(hour) // 60))
    assert page.inner_text("#now") == hour


def shown_picks(page):
    rows = page.eval_on_selector_all("#picks tbody tr", "rows => rows.map(row => ({...row.dataset}))")  # fmt: skip
    return [int(row["index"]) for row in rows], [float(row[key]) for key in ("score", "attention") for row in rows]  # fmt: skip


def shown_ranking(page):
    return page.eval_on_selector_all("#ranking button", "all => all.map(one => Number(one.dataset.item))")  # fmt: skip


def check(page, explorer, user, candidate, hour):
    """Picks, their scores and attention, dots and ranking."""
    second, shown = second_of(hour), Shown(explorer.of_model(), user)
    right = Right(explorer, user, second)
    found = right.search()
    picks, values = shown_picks(page)
    assert picks == found.indices[0, candidate].tolist()
    scores, attention = np.array(values).reshape(2, -1)
    np.testing.assert_array_equal(scores.astype(np.float32), found.scores[0, candidate].numpy())
    wanted = shown.attention(candidate, second, np.array(picks)).mean(0)
    np.testing.assert_allclose(attention, wanted, rtol=1e-9)
    dots = page.eval_on_selector_all("#kept circle", "all => all.map(one => [one.dataset.index, one.getAttribute('r')].map(Number))")  # fmt: skip
    np.testing.assert_allclose(dots, np.stack([picks, 2 + 9 * np.sqrt(wanted)], 1), rtol=1e-6)
    place = min(round(second / STEP), DAY // STEP - 1)
    of_grid = Right(explorer, user, place * STEP).request
    assert shown_ranking(page) == explorer.recommender.rank_many([of_grid])[0].items.tolist()
    at = f"{place * STEP // 3600}:{place * STEP % 3600 // 60:02}"
    assert page.inner_text("#grid") == at


def test_the_hour_is_dragged(visit, explorer, users):
    seen, orders = set(), set()
    for hour in HOURS:
        drag_to(visit.page, hour)
        check(visit.page, explorer, users[0], 0, hour)
        seen.add(tuple(shown_picks(visit.page)[0]))
        orders.add(tuple(shown_ranking(visit.page)))
        assert f"At {hour} the search keeps 5 of {len(explorer.recommender.store.get(users[0]['user']).item)} behaviours" in visit.page.inner_text("#summary")  # fmt: skip
    assert len(seen) >= 4  # minutes before and at midnight may keep the same
    assert len(orders) > 1


def test_the_keyboard_and_the_hand(visit, explorer, users):
    page = visit.page
    drag_to(page, "8:00")
    page.focus("#hour")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#now") == "8:05"
    assert page.get_attribute("#hour", "aria-valuetext") == "8:05"
    check(page, explorer, users[0], 0, "8:05")
    page.keyboard.press("Home")
    assert page.inner_text("#now") == "0:00"
    box = page.locator("#face").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0], middle[1] - 50)
    page.mouse.down()
    page.mouse.move(middle[0] + 50, middle[1], steps=3)  # a quarter of the day
    page.mouse.up()
    assert page.inner_text("#now") == "6:00"
    check(page, explorer, users[0], 0, "6:00")
    page.mouse.move(middle[0], middle[1] + 50)  # with nothing pressed
    assert page.inner_text("#now") == "6:00"


def test_users_and_candidates_are_picked(visit, explorer, users):
    page = visit.page
    page.select_option("#user", label=str(users[2]["user"]))
    check(page, explorer, users[2], 0, "8:00")
    page.select_option("#candidate", index=3)
    check(page, explorer, users[2], 3, "8:00")
    item = users[2]["candidates"][1]["item"]
    page.click(f'#ranking button[data-item="{item}"]')
    check(page, explorer, users[2], 1, "8:00")
    assert page.input_value("#candidate") == "1"
    assert page.get_attribute(f'#ranking button[data-item="{item}"]', "aria-pressed") == "true"
    assert page.locator('#ranking [aria-pressed="true"]').count() == 1


@pytest.mark.parametrize("width", [320, 375, 1180])
def test_nothing_is_wider_than_the_screen(browser, url, width):
    visit = Visit(browser, url, width)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    assert visit.page.evaluate("document.getElementById('scroll').scrollWidth - document.getElementById('scroll').clientWidth") == 0  # fmt: skip
    visit.close()


@pytest.mark.parametrize(("scheme", "paper", "ink"), [("light", "rgb(255, 255, 255)", "rgb(34, 34, 34)"), ("dark", "rgb(22, 22, 24)", "rgb(221, 221, 221)")])  # fmt: skip
def test_in_the_dark(browser, url, scheme, paper, ink):
    visit = Visit(browser, url, scheme=scheme)
    style = "getComputedStyle(document.body)"
    assert visit.page.evaluate(f"[{style}.backgroundColor, {style}.color]") == [paper, ink]
    visit.close()


def test_every_control_has_a_name(visit):
    names = visit.page.eval_on_selector_all(
        "select, input, button, #scroll, #face",
        "all => all.filter(one => one.checkVisibility()).map(one => one.labels?.[0]?.textContent.trim() || one.textContent.trim() || one.getAttribute('aria-labelledby'))",
    )
    assert len(names) > 10
    assert all(names)


@contextmanager
def serving(explorer):
    server = uvicorn.Server(uvicorn.Config(create_app(explorer, explorer.users(2)), port=0, log_level="error"))  # fmt: skip
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def test_a_server_is_asked_for_other_users(browser, explorer):
    with serving(explorer) as url:
        visit = Visit(browser, url)
        page = visit.page
        page.wait_for_selector("#picks tbody tr")
        check(page, explorer, explorer.of_user(explorer.users(1)[0]), 0, "8:00")
        other = explorer.users(6)[-1]
        page.fill("#other-user", str(other))
        page.fill("#other-items", "7, 3")
        page.click("text=Show")
        page.wait_for_selector("#ranking li:nth-child(2):last-child")
        check(page, explorer, explorer.of_user(other, [7, 3]), 0, "8:00")
        page.fill("#other-user", "nobody")
        page.click("text=Show")
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem").startswith("user 'nobody' has no behaviours in histories.db")  # fmt: skip
        assert len(visit.complaints) == 1  # the browser's own, of the status 400
        visit.complaints.clear()
        check(page, explorer, explorer.of_user(other, [7, 3]), 0, "8:00")
        assert all(request.startswith(url) for request in visit.requests)
        visit.close()


def test_a_new_version_is_shown_by_the_next_request(browser, tmp_path):
    explorer = explorer_of(tmp_path)
    first, second = explorer.users(2)
    old = explorer.version
    with serving(explorer) as url:
        visit = Visit(browser, url)
        page = visit.page
        page.wait_for_selector("#picks tbody tr")
        assert page.inner_text("#version") == old
        version = put_in_place(tmp_path, events_of(), "lic-half-day", seed=3)
        drag_to(page, "12:35")
        assert page.inner_text("#version") == old  # nothing was asked
        page.select_option("#user", label=str(second))
        page.locator("#version", has_text=version).wait_for()
        check(page, explorer, explorer.of_user(second), 0, "12:35")
        drag_to(page, "19:20")
        check(page, explorer, explorer.of_user(second), 0, "19:20")
        page.reload()
        page.wait_for_selector("#picks tbody tr")
        assert page.inner_text("#version") == version
        check(page, explorer, explorer.of_user(first), 0, "8:00")
        visit.close()
