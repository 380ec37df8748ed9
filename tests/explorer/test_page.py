"""The page without a browser: what its events return."""

import asyncio

import pytest

from umie.explorer import Explorer
from umie.explorer.page import Page
from umie.explorer.server import gradio_in


def built(explorer):
    """Build a page in an event loop, as the server does."""

    async def build():
        return Page(explorer)

    return asyncio.run(build())


@pytest.fixture(scope="module")
def page(explorer, tmp_path_factory):
    with gradio_in(tmp_path_factory.mktemp("page")):
        yield built(explorer)


def filled(page, **changes):
    """Return the values of the fields of an empty form, with some changes by the name of the attribute."""
    values = {id(part): None for part in page.fields}
    values |= {id(page.labels[task]): list(labels) for task, labels in page.explorer.labels.items()}
    values |= {id(page.places["image"]): "example", id(page.tasks): ["mner"], id(page.gate_is_fixed): False}
    values |= {id(getattr(page, name)): value for name, value in changes.items()}
    return list(values.values())


def test_an_example_is_loaded_with_the_tasks_that_it_is_annotated_for(page, explorer, records):
    for number, record in enumerate(records):
        found, text, tasks, image = page.load(number)
        assert (found, text, tuple(tasks)) == (number, record.text, record.tasks)
        assert image == str(explorer.examples[number].files["image"])


@pytest.mark.parametrize("number", [-1, 99, "0", None, 0.5])
def test_no_such_example_changes_nothing(page, number):
    assert page.load(number) == (page.gr.skip(),) * 4


def test_an_unexpected_failure_is_one_sentence(page, capfd):
    problem, answer, cards = page.extract(0.0, *filled(page, text="a", tasks=3))
    assert "The variant failed: TypeError" in problem["value"]
    assert (problem["visible"], answer, cards) == (True, "", None)
    assert "Traceback" in capfd.readouterr().err  # for whoever runs the page


def test_settings_do_nothing_without_an_answer(page):
    assert page.extract_again(None, 0.0, *filled(page, text="a")) == (page.gr.skip(),) * 3
    assert page.redraw(None, 0.5) == page.gr.skip()
    problem, answer, cards = page.extract(0.0, *filled(page, text="Ann in Rome"))
    assert (problem["visible"], "Ann" in answer, len(cards)) == (False, True, 1)
    assert page.extract_again(cards, 0.0, *filled(page, text="Ann in Rome"))[1].startswith("<div")


def test_a_page_without_images_gates_and_examples(blind):
    page = built(Explorer([blind]))
    assert page.media == {}
    assert page.extract(0.0, *(("a", ["mner"], ["x"], ["y"], None, False, 0, False)))[0]["visible"] is False
