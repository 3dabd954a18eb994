"""The report: what it says, that it is whole, that nothing in it runs, and what it refuses."""

import json
import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest

from mtbkd_jax.cli import main
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.report import report_page
from mtbkd_jax.runs import open_run

VOID = {"img", "input", "link", "meta"}


class Outline(HTMLParser):
    """Elements, their text, and whether each end is that of the element that is open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def test_every_id_is_there_once_and_every_link_leads_to_one(outline):
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = {attrs["href"] for _, attrs in outline.elements if attrs.get("href", "").startswith("#")}
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_nothing_in_it_runs_but_our_script_and_nothing_comes_from_elsewhere(outline, page):
    script = resources.files("mtbkd_jax.report").joinpath("examples.js").read_text()
    assert len(outline.all("script")) == 1
    assert "".join(text for tag, text in outline.texts if tag == "script") == script
    for _, attrs in outline.elements:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert "http:" not in page
    assert "https:" not in page
    (policy,) = [attrs["content"] for attrs in outline.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")
    assert "sha256-" in policy


def test_hostile_names_are_shown_as_text(outline, run):
    texts = {text for _, text in outline.texts}
    assert set(open_run(run).class_names) <= texts
    assert "<b>good</b>" in texts
    assert any(text.startswith('row-0"><img') for text in texts)


def test_headings_are_in_order_and_everything_has_a_name(outline):
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert outline.all("html") == [{"lang": "en"}]
    assert outline.all("img")
    assert all(attrs["alt"] for attrs in outline.all("img"))
    assert outline.all("svg")
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in outline.all("svg"))
    assert len(outline.all("caption")) == len(outline.all("table")) > 5
    assert all(attrs["scope"] in ("col", "row") for attrs in outline.all("th"))


def luminance(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_told_from_what_is_behind_it(scheme):
    style = resources.files("mtbkd_jax.report").joinpath("page.css").read_text()
    rules = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6});", rules[scheme]))
    for name in ("ink", "muted", "link", "good", "bad"):
        for behind in ("page", "raised"):
            low, high = sorted(luminance(colours[which]) for which in (name, behind))
            assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, AA
    # What figures are drawn in.
    for colour in ("#0072B2", "#D55E00"):
        low, high = sorted((luminance(colour), luminance(colours["page"])))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_the_same_run_gives_the_same_page(folder, run, page):
    assert report_page([run], data=folder / "images.npz") == page


def test_figures_of_merit_are_those_of_evaluate(folder, run, tmp_path, outline):
    main(["evaluate", str(run), "--data", str(folder / "images.npz"), "--out", str(tmp_path / "evaluation")])
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    texts = [text for tag, text in outline.texts if tag == "dd"]
    for name in ("accuracy", "negative_log_likelihood", "coverage_90"):
        assert f"{metrics[name]:.3f}" in texts


def test_texts_are_shown_where_a_file_has_them(folder, run):
    outline = Outline(report_page([run], data=folder / "texts.npz"))
    assert sum("text 7" in text for _, text in outline.texts) >= 1
    assert len(outline.all("script")) == 1


def test_without_data_a_run_is_reported_by_what_it_learned_from(run):
    outline = Outline(report_page([run]))
    texts = " ".join(text for _, text in outline.texts)
    assert "--data FILE.npz" in texts
    assert "120 of 120 examples" in texts
    assert outline.all("img")


def test_without_the_training_file_whom_the_student_follows_is_there_all_the_same(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data": "gone.npz"}))
    outline = Outline(report_page([copy]))
    assert not outline.all("img")
    assert "120 of 120 examples" in " ".join(text for _, text in outline.texts)


def test_several_runs_stand_side_by_side(folder, run, copy):
    outline = Outline(report_page([run, copy], data=folder / "images.npz"))
    texts = [text for _, text in outline.texts]
    assert "2 runs side by side" in texts
    assert texts.count("Example by example") == 4
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "name", ["manifest.json", "metrics.json", "diagnostics.json", "components.json", "selection.json", "teachers.npz"]
)
def test_a_file_that_was_cut_off_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptDataError, match=re.escape(name)):
        report_page([copy])


@pytest.mark.parametrize("name", ["diagnostics.json", "components.json", "selection.json"])
@pytest.mark.parametrize("content", [[], {}, 7, None])
def test_a_file_that_says_something_else_is_named(copy, name, content):
    (copy / name).write_text(json.dumps(content))
    with pytest.raises(CorruptDataError, match=re.escape(name)):
        report_page([copy])


def test_a_record_of_other_classes_is_refused(copy):
    fields = dict(np.load(copy / "teachers.npz"))
    np.savez(copy / "teachers.npz", **fields | {"responsibilities_by_class": np.zeros((3, 3))})
    with pytest.raises(CorruptDataError, match="responsibilities_by_class"):
        report_page([copy])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="the directory of a run"):
        report_page([tmp_path])


def test_a_run_that_is_not_finished_is_refused(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match="an unfinished run"):
        report_page([copy])


def test_runs_of_other_classes_are_refused(run, copy, monkeypatch):
    from mtbkd_jax.storage import read_manifest, write_manifest

    known = {"format_name": "mtbkd_jax.run", "version": 3}
    manifest = read_manifest(copy / "manifest.json", **known) | {"class_names": ["a", "b"]}
    del manifest["format"], manifest["version"]
    write_manifest(copy / "manifest.json", manifest, **known)
    with pytest.raises(InputError, match="class_names"):
        report_page([run, copy])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("class_names", np.array(["a", "b"])),
        ("inputs", np.zeros((120, 3))),
        ("labels", np.full(120, 2)),
        ("images", np.zeros((119, 4, 4))),
        ("images", np.zeros((120, 4))),
        ("texts", np.array(["a"])),
    ],
)
def test_data_that_do_not_fit_are_refused(folder, run, tmp_path, field, values):
    np.savez(tmp_path / "bad.npz", **dict(np.load(folder / "images.npz")) | {field: values})
    with pytest.raises(InputError, match=r"inputs|labels|images|texts|class_names"):
        report_page([run], data=tmp_path / "bad.npz")


def test_a_file_is_not_written_over_unless_asked_for(run, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    main(["report", str(run), "--out", str(out)])
    written = out.read_text()
    out.write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(["report", str(run), "--out", str(out)])
    assert caught.value.code == 2
    assert "--overwrite" in " ".join(capsys.readouterr().err.split())
    assert out.read_text() == "mine"
    main(["report", str(run), "--out", str(out), "--overwrite"])
    assert out.read_text() == written
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
