"""The page in a browser: from a text and an image to spans and boxes, and nothing from outside of this machine."""

import json

import pytest
from browser import open_page

CONTROL, TAB, ENTER, SPACE, END, BACKSPACE = "\ue009", "\ue004", "\ue007", "\ue00d", "\ue010", "\ue003"
CARDS = "return [...document.querySelectorAll('.ux-card')].map(one => one.querySelector('h2').textContent)"
# the text of the first card, without spaces and labels
TEXT = """
  const shown = document.querySelector('.ux-card .ux-text')?.cloneNode(true);
  for (const label of shown?.querySelectorAll('.ux-chip') ?? []) label.remove();
  return shown?.textContent.replace(/\\s/g, '')
"""
WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
# ticks or unticks the box whose label has some words
TICK = (
    "[...document.querySelectorAll('label')].find(one => one.textContent.includes('{}')).querySelector('input').click()"
)
HOSTILE = "<img src=x onerror='window.hacked=1'> ${window.hacked=2} {{constructor}} `"


@pytest.fixture(scope="module")
def browser():
    with open_page() as page:
        yield page


@pytest.fixture
def page(browser, address):
    """The page with the first example answered; afterwards it had no problem, and loaded nothing from outside."""
    browser.resize(1280)
    browser.requested()
    browser.problems()
    browser.open(address)
    browser.wait_for("return document.querySelectorAll('.ux-card').length == 3")
    yield browser
    assert browser.problems() == []
    others = [one for one in browser.requested() if not one.startswith((address, "data:", "blob:"))]
    assert others == []


def write(page, selector, text):
    """Replace the text of a field."""
    page.click(selector)
    page.press(CONTROL, "a")
    page.press(BACKSPACE)
    page.type(selector, text)


def answer_to(page, text, keys=(CONTROL, ENTER)):
    """Type a text, press some keys, and wait for its answer."""
    write(page, "textarea", text)
    page.press(*keys)
    page.wait_for(f"return (() => {{ {TEXT} }})() == {json.dumps(''.join(text.split()))}")


@pytest.mark.slow
def test_the_first_example_is_answered_next_to_its_annotation(page, records):
    assert page.run(CARDS) == ["gated/best", "random/best", "Annotation: test.jsonl:1"]
    assert page.run("return document.querySelector('textarea').value") == records[0].text
    assert page.run("return document.querySelectorAll('.ux-card img').length") == 2  # one variant sees no images
    assert page.run("return document.querySelectorAll('.ux-card .ux-box').length") == 8
    assert page.run("return document.querySelectorAll('mark .ux-chip').length") >= 1
    number = next(number for number, record in enumerate(records) if record.events)
    page.click(f"[data-index='{number}']")
    page.wait_for(f"{CARDS}.includes('Annotation: test.jsonl:{number + 1}')")
    names = page.run(
        "return [...document.querySelectorAll('.ux-annotated .ux-used')].map(one => one.textContent.trim())"
    )
    expected = sum(argument.span is None for event in records[number].events for argument in event.arguments)
    assert len(names) == expected > 0
    assert page.run("return document.querySelectorAll('.ux-mark').length") > 0


def test_a_text_with_an_uploaded_image(page, noise, tmp_path):
    noise(300, 200).save(tmp_path / "my photo.png")
    page.click("button[aria-label='Remove Image']")
    page.type("input[type=file]", str(tmp_path / "my photo.png"))
    page.wait_for("return document.querySelector('button[aria-label=\"Remove Image\"]')")
    page.click("input[aria-label='Regions of the image']")
    page.wait_for("return document.querySelectorAll('[role=option]').length == 4")
    page.click("[role=option][aria-label='found by grid']")
    answer_to(page, "Deke Roli met Vada Vesa")
    assert page.run(CARDS) == ["gated/best", "random/best"]  # no annotation
    assert page.run("return document.querySelectorAll('.ux-card .ux-box').length") == 16
    image = "const one = document.querySelector('.ux-card img'); return one.alt + ' ' + one.naturalWidth"
    assert page.run(image) == "my photo.png 300"
    for width in (1280, 390):
        page.resize(width)
        assert page.run(WIDE) == 0


def test_the_gate_the_threshold_and_the_image(page):
    footer = "return document.querySelector('.ux-card footer').textContent"
    assert "gate: mner -0.00" in page.run(footer)
    page.run(TICK.format("Fix the gate"))
    page.wait_for(f"{footer}.includes('gate fixed at 0.00')")
    page.wait_for("return document.querySelector('input[aria-label=\"number input for Gate\"]')")
    write(page, "input[aria-label='number input for Gate']", "1.5" + TAB)
    page.wait_for(f"{footer}.includes('gate fixed at 1.50')")
    page.run(TICK.format("Did the image matter?"))
    page.wait_for("return document.querySelectorAll('.ux-explanation').length == 1")  # the other sees no images
    rows = "return document.querySelectorAll('.ux-card')[0].querySelectorAll('.ux-items tbody tr').length"
    assert page.run(rows) > 0
    page.run("document.querySelector('input[type=range]').focus()")
    page.press(END)
    page.wait_for(f"{rows} == 0")
    assert "below the threshold" in page.run("return document.querySelector('.ux-card').textContent")
    page.resize(390)
    assert page.run(WIDE) == 0


def test_bad_uploads_are_refused_in_one_sentence(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    page.click("button[aria-label='Remove Image']")
    page.type("input[type=file]", str(tmp_path / "notes.png"))
    problem = page.wait_for("return document.querySelector('[role=alert].ux-problem')?.textContent")
    assert problem == "notes.png: not a readable image (unknown format) (use PNG, JPEG, WebP, GIF, BMP or TIFF)"
    assert page.run("return document.querySelectorAll('button[aria-label=\"Remove Image\"]').length") == 0
    answer_to(page, "Still here")
    assert page.run("return document.querySelectorAll('.ux-problem').length") == 0
    page.press(CONTROL, "a")
    page.press(BACKSPACE)
    page.click("#ux-extract")
    problem = page.wait_for("return document.querySelector('[role=alert].ux-problem')?.textContent")
    assert problem == "Type a text, or upload what belongs to it."


def test_an_upload_that_is_too_large(browser, address, tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(100_000_000)
    browser.resize(1280)
    browser.open(address)
    browser.wait_for("return document.querySelectorAll('.ux-card').length == 3")
    browser.click("button[aria-label='Remove Image']")
    browser.type("input[type=file]", str(tmp_path / "huge.png"))
    browser.wait_for("return document.body.innerText.includes('exceed the maximum allowed size of 1')")
    browser.problems()  # Gradio asks for the progress of what it does not send


def test_hostile_texts_and_labels_run_nothing(page):
    page.run("document.querySelector('button.label-wrap').click()")
    page.wait_for("return document.querySelector('input[aria-label=\"entities (mner)\"]')?.offsetParent")
    page.click("input[aria-label='entities (mner)']")
    page.type("input[aria-label='entities (mner)']", HOSTILE + ENTER)
    answer_to(page, HOSTILE)
    assert page.run("return window.hacked ?? null") is None
    assert "not trained on the labels" in page.run("return document.querySelector('.ux-warning').textContent")
    assert page.run("return document.querySelectorAll('.ux-card [onerror], .ux-card script').length") == 0


def test_the_page_can_be_used_with_the_keyboard(page, records):
    """Examples, then the text, then the image, then the settings; a button is pressed with the space bar."""
    page.run("document.querySelector('[data-index]').focus()")
    page.press(TAB)
    page.press(SPACE)
    page.wait_for(f"{CARDS}.includes('Annotation: test.jsonl:2')")
    order = [
        "document.activeElement.dataset.index == '5'",
        "document.activeElement.matches('textarea')",
        "document.activeElement.matches('button')",
        "document.activeElement.matches('input[aria-label=\"Regions of the image\"]')",
        "document.activeElement.matches('input[type=checkbox]')",
        "document.activeElement.id == 'ux-extract'",
        "document.activeElement.matches('.ux-card [tabindex]')",
    ]
    for reached in order:
        for _ in range(20):
            if page.run(f"return {reached}"):
                break
            page.press(TAB)
        else:
            raise AssertionError(f"not reached: {reached}")
    assert page.run("return document.querySelectorAll('.ux-dim').length") == 1  # what is in focus stays, the rest fades


def test_two_users_do_not_mix(page, address):
    """Each has a page; changing the threshold draws the answer of this page again, which is kept on the server."""
    first, second = page.tabs(2)
    try:
        answer_to(page, "Ann in Rome")
        page.show(second)
        page.open(address)
        page.wait_for("return document.querySelectorAll('.ux-card').length == 3")
        answer_to(page, "Bob in Paris")
        page.show(first)
        page.run("document.querySelector('input[type=range]').focus()")
        page.press(END)
        page.wait_for("return document.querySelectorAll('.ux-card .ux-items').length == 0")
        assert page.run(TEXT) == "AnninRome"
    finally:
        page.show(second)
        page.close_tab()
        page.show(first)


def test_the_answer_as_json(page):
    page.click(".ux-card summary")
    page.wait_for("return document.querySelector('.ux-card details').open")
    page.click(".ux-copy")
    page.wait_for("return document.querySelector('.ux-copy').textContent != 'Copy'")
    text = page.run("return JSON.parse(document.querySelector('.ux-card pre').textContent)")
    download = page.run("return fetch(document.querySelector('.ux-card a[download]').href).then(one => one.json())")
    assert text == download
    assert text["entities"][0]["probability"] > 0.5


def test_dark_colors(page, address):
    light = page.run("return getComputedStyle(document.querySelector('.ux-card')).backgroundColor")
    page.media("prefers-color-scheme", "dark")
    try:
        page.open(address)
        page.wait_for("return document.querySelectorAll('.ux-card').length == 3")
        assert page.run("return getComputedStyle(document.querySelector('.ux-card')).backgroundColor") != light
    finally:
        page.media("prefers-color-scheme", "")
