"""What all widgets share: the worker, errors, the picture that stays, and what Colab needs."""

import base64
import io
import sys
import threading
import types

import pytest
import traitlets
from ipywidgets.widgets import widget as widgets
from PIL import Image

import ganlens as gl
from ganlens.widgets import panel
from ganlens.widgets.worker import Worker

WIDGETS = ["UnitGallery", "IoUHeatmap", "InterventionCanvas", "Explorer"]


@pytest.fixture
def worker():
    """A worker that is held up at its first job, its errors, and how to let it go."""
    errors, gate = [], threading.Event()
    worker = Worker(errors.append)
    started = threading.Event()
    worker.request("gate", lambda: (started.set(), gate.wait(30)))
    assert started.wait(30)
    yield worker, errors, gate.set
    gate.set()
    assert worker.wait(30)


class TestWorker:
    def test_the_newest_job_of_a_name_is_done_and_names_keep_their_order(self, worker):
        worker, _, release = worker
        done = []
        for i in range(5):
            worker.request("a", lambda i=i: done.append(("a", i)))
            worker.request("b", lambda i=i: done.append(("b", i)))
        assert worker.outdated("a")
        release()
        assert worker.wait(30)
        assert done == [("a", 4), ("b", 4)]
        assert worker.idle
        assert not worker.outdated("a")

    def test_an_error_is_told_and_the_next_job_is_done(self, worker):
        worker, errors, release = worker
        done = []
        worker.request("bad", lambda: 1 / 0)
        worker.request("good", lambda: done.append(1))
        release()
        assert worker.wait(30)
        assert ([type(error) for error in errors], done) == ([ZeroDivisionError], [1])

    def test_a_job_may_ask_for_the_next_one(self):
        done = []
        worker = Worker(done.append)

        def step():
            done.append(len(done))
            if len(done) < 3:
                worker.request("step", step)

        worker.request("step", step)
        assert worker.wait(30)
        assert done == [0, 1, 2]

    def test_waiting_ends(self, worker):
        worker, _, _ = worker
        assert not worker.wait(0.01)


@pytest.mark.parametrize("name", WIDGETS)
class TestEveryWidget:
    def test_shows_errors_with_a_folded_traceback_and_takes_them_away(self, name, D):
        widget = getattr(gl, name)(D)
        with widget.showing_errors():
            raise ValueError("2 < 3 & more")
        assert "2 &lt; 3 &amp; more" in widget.failure
        assert "<details>" in widget.failure
        assert "Traceback" in widget.failure
        with widget.showing_errors():
            raise KeyError("x")
        assert "KeyError" in widget.failure
        with widget.showing_errors():
            pass
        assert widget.failure == ""
        assert widget.wait()

    def test_leaves_a_picture_and_keeps_an_error(self, name, D):
        widget = getattr(gl, name)(D)
        assert widget.wait()
        widget.show_error(ValueError("before"))
        picture, about = widget.saved.bundle()
        (kind,) = about
        content = base64.b64decode(picture[kind])
        assert Image.open(io.BytesIO(content)).size[0] > 100  # the mark inside is passed over
        (mark,) = [mark for mark in widget.stands_for if mark in picture[kind]]
        assert widget.model_id[:31] in base64.b64decode(mark).decode("latin-1")
        assert about[kind]["alt"] == f"picture of <{name} layer4 of scenes>"
        data, metadata = widget._repr_mimebundle_()
        assert data["text/plain"] == f"<{name} layer4 of scenes>"
        assert metadata == {}
        assert "before" in widget.failure

    def test_closing_leaves_nothing_in_the_kernel(self, name, D):
        before = set(widgets._instances)
        for wait in (False, True):
            widget = getattr(gl, name)(D)
            assert widget.wait() or not wait
            widget.close()
        assert widget.worker.wait(30) if hasattr(widget, "worker") else True
        assert set(widgets._instances) <= before

    def test_names_of_any_length_are_refused_in_few_words(self, name, D):
        widget = getattr(gl, name)(D)
        with pytest.raises(traitlets.TraitError, match="no concept 'xxx") as refused:
            widget.concept = "x" * 10**6
        assert len(str(refused.value)) < 1000
        widget.close()

    def test_unknown_keyword(self, name, D):
        with pytest.raises(TypeError, match="colour"):
            getattr(gl, name)(D, colour="red")

    def test_one_generator_at_a_time(self, name, D):
        from dataclasses import replace

        other = replace(D, layer="layer5", origin=D.origin | {"generator_fingerprint": "other"})
        with pytest.raises(ValueError, match="different generators"):
            getattr(gl, name)({"layer4": D, "layer5": other})


def test_colab_gets_its_widget_manager_once(monkeypatch, capsys, D):
    """Colab is not here: this package has the two names of it that are used."""
    calls = []
    output = types.SimpleNamespace(
        enable_custom_widget_manager=lambda: calls.append(1),
        _widgets=types.SimpleNamespace(_installed_url="https://cdn"),
    )
    google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
    google.colab, colab.output = colab, output
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.delattr(panel.enable_in_colab, "done", raising=False)
    for _ in range(2):
        panel.enable_in_colab()
    assert calls == [1]
    assert capsys.readouterr().out == "ganlens: switched on Colab's custom widget manager.\n"
    view = panel.colab_metadata()["application/vnd.jupyter.widget-view+json"]
    assert view == {"colab": {"custom_widget_manager": {"url": "https://cdn"}}}
    monkeypatch.delattr(panel.enable_in_colab, "done")
