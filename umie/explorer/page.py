"""The page of ``umie explore``, in Gradio: its components, and what happens when they are used."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from umie.errors import UmieError, import_extra, one_line
from umie.explorer.cards import (
    cards_of,
    render_cards,
    render_examples,
    render_head,
    render_note,
    render_problem,
    template,
)
from umie.explorer.explorer import OWN, WHOLE, Explorer, Form, Upload
from umie.records import Medium
from umie.records.places import A_MEDIUM, PLACES, PLURALS
from umie.tasks import task_class

HEIGHT = 240  # pixels of an upload
KEPT = 3600  # seconds for which the answers of a closed page are kept


class Page:
    """The components of the page and its events.

    A value of an upload component is the path of a file, because the events have ``preprocess=False``: Gradio would
    decode images itself, with its own messages. It checks in any case that the path is that of an upload.

    Args:
        explorer: the variants and examples.

    Attributes:
        blocks: the page as ``gradio.Blocks``.

    Raises:
        UmieError: gradio is not installed.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.gr = gr = import_extra("gradio", "web", "umie explore")
        self.explorer = explorer
        self.media: dict[Medium, Any] = {}
        self.places: dict[Medium, Any] = {}
        title = " against ".join(variant.name for variant in explorer.variants)
        with gr.Blocks(title=f"{title} - umie explore", analytics_enabled=False) as self.blocks:
            self.example, self.cards = gr.State(None), gr.State(None, time_to_live=KEPT)
            gr.HTML(render_head(explorer.variants), apply_default_css=False)
            self.gallery = gr.HTML(
                render_examples(explorer.examples),
                js_on_load=template("examples.js"),
                apply_default_css=False,
                visible=bool(explorer.examples),
            )
            with gr.Row():
                with gr.Column(scale=4, min_width=300):
                    look = {"elem_classes": "ux-tall"} if explorer.media else {}
                    self.text = gr.Textbox(label="Text", lines=4, max_lines=12, autofocus=True, **look)
                if explorer.media:
                    with gr.Column(scale=3, min_width=280):
                        self._add_media()
                with gr.Column(scale=3, min_width=280):
                    self._add_settings()
            self._add_labels()
            self.problem = gr.HTML(visible=False, apply_default_css=False)
            self.answer = gr.HTML(
                render_note(_hint(explorer.media)),
                js_on_load=template("cards.js"),
                apply_default_css=False,
                elem_id="ux-answer",
            )
            self._add_events()

    def _add_labels(self) -> None:
        gr = self.gr
        with gr.Accordion("Labels", open=False):
            gr.HTML(render_note("Remove labels, or type any other and press Enter."), apply_default_css=False)
            with gr.Row():
                self.labels = {
                    task: gr.Dropdown(
                        list(known),
                        value=list(known),
                        label=_task_title(task),
                        multiselect=True,
                        allow_custom_value=True,
                        min_width=240,
                    )
                    for task, known in self.explorer.labels.items()
                }

    def _add_media(self) -> None:
        gr, explorer = self.gr, self.explorer
        own = [("those of the example", OWN)] if explorer.examples else []
        for medium in explorer.media:
            noun = PLURALS[medium][:-1]
            if medium == "image":
                part = gr.Image(label="Image", sources=["upload"], type="filepath", height=HEIGHT, buttons=[])
            else:  # the answer plays it
                part = gr.File(label=noun.capitalize(), type="filepath", height=HEIGHT // 2)
            self.media[medium] = part
            found = [(f"found by {name}", name) for name in explorer.proposers[medium]]
            self.places[medium] = gr.Dropdown(
                [*own, (f"none: the {noun} as a whole", WHOLE), *found],
                value=OWN if own else WHOLE,
                label=f"{PLACES[medium].capitalize()} of the {noun}",
                filterable=False,
            )

    def _add_settings(self) -> None:
        gr, explorer = self.gr, self.explorer
        choices = [(_task_title(task), task) for task in explorer.labels]
        self.tasks = gr.CheckboxGroup(choices, value=list(explorer.labels), label="Tasks", elem_classes="ux-tasks")
        with gr.Group():
            self.threshold = gr.Slider(0, 1, 0, step=0.01, label="Hide items less probable than")
            if explorer.largest_gate is None:
                self.gate_is_fixed, self.gate = gr.State(False), gr.State(0)
            else:
                self.gate_is_fixed = gr.Checkbox(label="Fix the gate")
                most = round(explorer.largest_gate, 2)
                self.gate = gr.Slider(0, most, 0, step=0.01, label="Gate", visible=False)
            self.explained = gr.Checkbox(label="Did the image matter?", visible="image" in explorer.media)
        self.button = gr.Button("Extract  (Ctrl+Enter)", variant="primary", elem_id="ux-extract")

    def _add_events(self) -> None:
        private = {"api_visibility": "private", "preprocess": False}
        self.fields = [
            *(self.text, self.tasks, *self.labels.values(), *self.media.values(), *self.places.values()),
            *(self.example, self.gate_is_fixed, self.gate, self.explained),
        ]
        asked = {
            "inputs": [self.threshold, *self.fields],
            "outputs": [self.problem, self.answer, self.cards],
            **private,
        }
        again = {**asked, "inputs": [self.cards, self.threshold, *self.fields], "trigger_mode": "always_last"}
        filled = {"outputs": [self.example, self.text, self.tasks, *self.media.values()], **private}
        self.button.click(self.extract, **asked)
        self.gallery.click(_reads_event(self.gr, self.choose), None, **filled).then(self.extract, **asked)
        if self.explorer.examples:
            self.blocks.load(partial(self.load, 0), None, **filled).then(self.extract, **asked)
        self.explained.input(self.extract_again, **again)
        quiet = {"show_progress": "hidden", **private}
        self.threshold.input(
            self.redraw, [self.cards, self.threshold], self.answer, trigger_mode="always_last", **quiet
        )
        if self.explorer.largest_gate is not None:
            self.gate_is_fixed.input(self.show_gate, self.gate_is_fixed, self.gate, **quiet)
            self.gate_is_fixed.input(self.extract_again, **again)
            self.gate.input(self.extract_again, **again)
        for medium, part in self.media.items():
            part.upload(partial(self.check, medium), part, [part, self.problem], **quiet)

    def read(self, values: Sequence[Any]) -> Form:
        """Return the form with the values of ``fields``."""
        given = dict(zip(self.fields, values, strict=True))
        uploads = {medium: _upload(given[part]) for medium, part in self.media.items()}
        return Form(
            text=given[self.text] or "",
            uploads={medium: one for medium, one in uploads.items() if one is not None},
            places={medium: given[part] for medium, part in self.places.items()},
            tasks=given[self.tasks] or (),
            labels={task: given[part] for task, part in self.labels.items()},
            example=given[self.example],
            gate=given[self.gate] if given[self.gate_is_fixed] else None,
            explained=bool(given[self.explained]),
        )

    def extract(self, threshold: float, *values: Any) -> tuple[Any, ...]:
        """Return the problem of a form, or the answers to it, and the cards to keep."""
        try:
            cards = cards_of(self.explorer.ask(self.read(values)))
        except UmieError as error:
            return self._problem(str(error)), "", None
        except Exception as error:  # a device or a custom part can fail in any way; the page must say so
            traceback.print_exc()
            return self._problem(f"The variant failed: {type(error).__name__}: {one_line(error)[:200]}"), "", None
        return self._problem(), render_cards(cards, self.explorer.labels, threshold), cards

    def extract_again(self, cards: Any, threshold: float, *values: Any) -> tuple[Any, ...]:
        """Do the same after a change of the settings, if there is an answer."""
        return (self.gr.skip(),) * 3 if cards is None else self.extract(threshold, *values)

    def redraw(self, cards: Any, threshold: float) -> Any:
        """Return the answers with another threshold."""
        return self.gr.skip() if cards is None else render_cards(cards, self.explorer.labels, threshold)

    def show_gate(self, is_fixed: Any) -> Any:
        """Show the slider of the gate while the gate is fixed."""
        return self.gr.update(visible=bool(is_fixed))

    def choose(self, event: Any) -> tuple[Any, ...]:
        """Return the values of the example that was clicked."""
        return self.load(event.index)

    def load(self, number: Any) -> tuple[Any, ...]:
        """Return the number of an example, its text, the tasks that it is annotated for, and files of its media."""
        examples = self.explorer.examples
        if not isinstance(number, int) or not 0 <= number < len(examples):
            return (self.gr.skip(),) * (3 + len(self.media))
        record, files = examples[number].record, examples[number].files
        tasks = [task for task in self.labels if record.annotated.annotated_for(task)] or list(self.labels)
        return number, record.text, tasks, *(str(files[medium]) if medium in files else None for medium in self.media)

    def check(self, medium: Medium, value: Any) -> tuple[Any, Any]:
        """Return what to do with an upload: remove it if it cannot be read, and say why."""
        try:
            if (upload := _upload(value)) is not None:
                self.explorer.check_upload(medium, upload)
        except UmieError as error:
            return None, self._problem(str(error))
        return self.gr.skip(), self._problem()

    def _problem(self, message: str = "") -> Any:
        return self.gr.update(value=render_problem(message), visible=bool(message))


def _reads_event(gr: Any, function: Any) -> Any:
    """Return a function whose argument Gradio, which is imported late, knows to be the data of an event."""

    def call(event: Any) -> Any:
        return function(event)

    call.__annotations__["event"] = gr.EventData
    return call


def _hint(media: Sequence[Medium]) -> str:
    more = f", add {' or '.join(A_MEDIUM[medium] for medium in media)}" if media else ""
    return f"Write a text{more}, and press Extract."


def _task_title(task: str) -> str:
    kind = task_class(task).kind
    return f"{kind} ({task})" if kind else task


def _upload(value: Any) -> Upload | None:
    if not isinstance(value, dict) or not value.get("path"):
        return None
    path = Path(str(value["path"]))
    return Upload(path, str(value.get("orig_name") or path.name))
