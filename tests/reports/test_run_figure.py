"""The curves of a run: titles, order of the legend, and the scale of the loss."""

from types import SimpleNamespace

import pytest

from umie.reports import run as run_report

TITLES = {"twitter17 mner": "twitter17 MNER", "meae": "MEAE (oracle events)"}


def _drawn(monkeypatch, tmp_path, losses, scores=()):
    figures = []
    monkeypatch.setattr(run_report, "save_figure", lambda figure, *_, **__: figures.append(figure))
    history = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    history += [{"step": step, **score} for step, score in enumerate(scores, 1)]
    run = SimpleNamespace(history=history, titles=TITLES, measured={"best_step": 2} if scores else {})
    run_report.draw_curves(run, tmp_path / "curves.png")
    return figures[0]


def test_scores_have_the_titles_and_order_of_the_table(monkeypatch, tmp_path):
    score = {"eval_meae_f1": 0.0, "eval_mean_f1": 0.0, "eval_twitter17_mner_f1": 0.0, "eval_meae_gate": 0.1}
    figure = _drawn(monkeypatch, tmp_path, [1.0], [score, score])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["twitter17 MNER", "MEAE (oracle events)", "mean", "best: step 2"]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("training step (updates of the weights)", "mean loss (nats)"),
        ("training step (updates of the weights)", "micro-F1 (0 to 1)"),
    ]
    first, second, *_ = figure.axes[1].lines
    assert first.get_linewidth() > second.get_linewidth()  # equal scores do not hide each other


@pytest.mark.parametrize(("losses", "scale"), [([1.4, 1.3], "linear"), ([4.0, 0.02], "log"), ([1.0, 0.0], "linear")])
def test_the_loss_is_logarithmic_if_it_spans_a_decade(monkeypatch, tmp_path, losses, scale):
    figure = _drawn(monkeypatch, tmp_path, losses)
    assert figure.axes[0].get_yscale() == scale
    assert not figure.legends


def test_a_run_without_logs_is_drawn(monkeypatch, tmp_path):
    assert not _drawn(monkeypatch, tmp_path, []).axes[0].lines
