"""Reports: numbers against hand computations, the page against the tables, and nothing taken at its word."""

import base64
import io
import json
import re
import shlex
import socket
import threading
import time
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binom

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.task import margin
from robustbench_lite.engines.explanations import chosen, path_of
from robustbench_lite.jobs.job import Work
from robustbench_lite.judging.judge import look_clean
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.schema import read_compact
from robustbench_lite.reports import serve
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.findings import verdict, warnings
from robustbench_lite.reports.leaderboard import leaderboard, model_info
from robustbench_lite.reports.page.page import command, drawn, page
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.serve import server
from robustbench_lite.reports.tables.catalogue import RARE, TABLES
from robustbench_lite.reports.tables.pairs import compared
from robustbench_lite.reports.tables.statistics import clopper_pearson, mcnemar, wilson
from robustbench_lite.runs.config import make, read
from tests.conftest import recorded, run_with


class Tables(HTMLParser):
    """The cells of every table of a page, by the table's name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.scripts = 0
        self._rows: list[list[str]] | None = None
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = dict(attrs)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.scripts += tag == "script"
        if tag == "table":
            self._rows = self.found.setdefault(str(given_["id"]), [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")
        if tag == "table":
            self._rows = None

    def handle_data(self, data: str) -> None:
        if self._cell and self._rows:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    attacks = ["noise", "fgsm", "iterative:steps=5", "exact", "universal:method=sgd,steps=10"]
    threats = ["linf:0.1", "l2:min"]
    run_with("digits", ["logistic", "tree"], attacks, threats, 40, out=folder, transfer=True)
    return folder


@st.composite
def made(draw: st.DrawFn) -> pd.DataFrame:
    """Records of two attacks on two models: from no success to all, wrong, invalid and single samples."""
    n = draw(st.integers(1, 12))
    frames = []
    for model in ("a", "b"):
        clean = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
        label = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
        for attack in ("one", "two"):
            bits = draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n))
            valid = np.array(bits[:n])
            success = np.array(bits[n:]) & valid & (clean == label)
            frames.append(
                recorded(
                    {
                        "model": model, "attack": attack, "threat": "linf:0.1", "eps": 0.1, "data": "d",
                        "goal": "untargeted", "family": "f", "sample_id": np.arange(n), "label": label,
                        "clean_prediction": clean, "success": success, "valid": valid,
                        "adversarial_prediction": np.where(success, label + 1, clean), "l0": 1.0, "l1": 2.0,
                        "l2": np.linspace(0.1, 1, n), "linf": 0.1, "clean_confidence": 0.9,
                        "adversarial_confidence": 0.6, "queries_at_success": np.where(success, 3, -1),
                        "forwards": 5, "backwards": 4, "seconds": 0.25, "certify_seconds": 3.0,
                        "surrogate": False,
                    },
                    n,
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@settings(max_examples=25, deadline=None)
@given(made())
def test_tables_are_what_a_hand_would_count(records: pd.DataFrame) -> None:
    rows = records.to_dict("records")
    for row in TABLES["success"](records).to_dict("records"):
        cell = [r for r in rows if (r["model"], r["attack"]) == (row["model"], row["attack"])]
        able = [r for r in cell if r["label"] == r["clean_prediction"]]
        broken = sum(r["success"] for r in cell)
        assert (row["samples"], row["right"], row["broken"]) == (len(cell), len(able), broken)
        assert row["robust"] == (len(able) - broken) / len(cell)
        assert (row["low"], row["high"]) == wilson(broken, len(able))
        assert row["invalid"] == sum(not r["valid"] for r in cell)
        assert row["cp_low"] <= broken / max(1, len(able)) <= row["cp_high"]
    for row in TABLES["worst_case"](records).to_dict("records"):
        mine = [r for r in rows if r["model"] == row["model"]]
        ids = {r["sample_id"] for r in mine}
        lost = {r["sample_id"] for r in mine if r["label"] != r["clean_prediction"] or r["success"]}
        assert row["robust"] == len(ids - lost) / len(ids)
    for row in TABLES["per_class"](records).to_dict("records"):
        cell = [
            r for r in rows
            if (r["model"], r["attack"], r["label"]) == (row["model"], row["attack"], row["label"])
        ]  # fmt: skip
        held = [r for r in cell if r["label"] == r["clean_prediction"] and not r["success"]]
        assert row["robust"] == len(held) / len(cell)
    for row in TABLES["pairs"](records).to_dict("records"):
        sets = [
            {r["sample_id"] for r in rows if (r["model"], r["attack"]) == (row["model"], a) and r["success"]}
            for a in (row["first"], row["second"])
        ]
        assert row["both"] == len(sets[0] & sets[1])
        assert (row["only_first"], row["only_second"]) == (len(sets[0] - sets[1]), len(sets[1] - sets[0]))
    turned = TABLES["confusion"](records)
    assert int(turned["samples"].sum()) == sum(r["success"] for r in rows)
    sizes = TABLES["distances"](records)
    for row in sizes.loc[sizes["norm"] == "l2"].to_dict("records"):
        won = [
            r["l2"]
            for r in rows
            if (r["model"], r["attack"]) == (row["model"], row["attack"]) and r["success"]
        ]
        assert row["successes"] == len(won)
        if won:
            assert row["median"] == pytest.approx(float(np.median(won)))
    for row in TABLES["costs"](records).to_dict("records"):
        assert row["forwards"] == 5
        assert row["per_second"] == pytest.approx(4.0)
        count = sum((r["model"], r["attack"]) == (row["model"], row["attack"]) for r in rows)
        each = 3.0 / count / 0.25  # seconds a sample, in quarters of a second that a sample's passes took
        assert row["certify_passes"] == pytest.approx(each * (row["forwards"] + row["backwards"]))
    asked = TABLES["queries"](records)
    assert ((asked["success"] > 0) & (asked["success"] <= 1)).all()
    for name, table in TABLES.items():
        assert isinstance(table(records), pd.DataFrame), name


def test_what_each_part_of_a_composite_found_and_what_that_took() -> None:
    """Part a breaks samples 0 and 1 in 2 and 4 passes, b sample 2 in 10; sample 3 holds for 20."""
    columns = {
        "model": "m", "attack": "auto", "threat": "linf:0.1", "eps": 0.1, "data": "d", "goal": "untargeted",
        "family": "f", "sample_id": np.arange(4), "label": 0, "clean_prediction": 0, "valid": True,
        "success": np.array([True, True, True, False]), "winner": np.array([*"aab", None], dtype=object),
        "queries_at_success": np.array([2, 4, 10, -1]), "forwards": np.array([2, 4, 10, 20]), "backwards": 0,
    }  # fmt: skip
    table = TABLES["winners"](recorded(columns, 4)).set_index("winner")
    assert table["successes"].to_dict() == {"a": 2, "b": 1}
    assert table["points"].to_dict() == {"a": 50.0, "b": 25.0}
    assert table["to_success"].to_dict() == {"a": 3.0, "b": 10.0}
    assert table["forwards"].to_dict() == {"a": 2 + 4 + 4 + 4, "b": (10 - 4) + (10 - 4)}
    assert table["forwards_a_point"].to_dict() == {"a": 14 / 50, "b": 12 / 25}


def test_intervals_are_the_published_ones() -> None:
    assert wilson(500, 1000) == pytest.approx((0.469, 0.531), abs=5e-4)
    assert wilson(5000, 10000) == pytest.approx((0.4902, 0.5098), abs=5e-5)
    assert wilson(0, 100)[1] == pytest.approx(0.0370, abs=5e-5)
    assert clopper_pearson(0, 100) == pytest.approx((0, 0.0362), abs=5e-5)
    assert clopper_pearson(0, 0) == wilson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(7, 7)[1] == 1.0
    low, high = clopper_pearson(30, 100)
    assert binom.sf(29, 100, low) == pytest.approx(0.025)
    assert binom.cdf(30, 100, high) == pytest.approx(0.025)


def test_mcnemar_counts_coins() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(3, 9) == pytest.approx(2 * sum(binom.pmf(k, 12, 0.5) for k in range(4)))
    assert mcnemar(9, 3) == mcnemar(3, 9)


def test_a_curve_falls_from_clean_accuracy_to_what_nothing_breaks() -> None:
    n = 5
    cell = recorded(
        {
            "model": "m", "attack": "fmn", "threat": "l2:min", "goal": "untargeted",
            "sample_id": np.arange(n), "label": 0, "valid": True,
            "clean_prediction": np.array([0, 0, 0, 0, 1]),
            "success": np.array([True, True, True, False, False]), "l2": np.array([0.5, 0.1, 0.3, 0, 0]),
        },
        n,
    )  # fmt: skip
    table = TABLES["curves"](cell)
    at = dict(zip(table["eps"].round(6), table["robust"], strict=True))
    assert (at[0.0], at[0.1], at[0.3], at[0.5]) == (0.8, 0.6, 0.4, 0.2)
    assert table["robust"].is_monotonic_decreasing
    assert TABLES["worst_case"](cell).empty  # the smallest perturbation has no accuracy


def test_two_runs_are_compared_sample_by_sample(run: Path) -> None:
    records = Results.open(run).records
    same = compared(records, records)
    assert set(same["verdict"]) == {"same"}
    assert (same["lost"] == 0).all()
    worse = records.copy()
    right = worse["clean_prediction"] == worse["label"]
    worse.loc[(worse["attack"] == "noise") & (worse["model"] == "logistic") & right, "success"] = True
    row = (
        compared(records, worse)
        .set_index(["model", "attack", "threat"])
        .loc[("logistic", "noise", "linf:0.1")]
    )
    assert row["verdict"] == "worse"
    assert row["after"] == 0.0
    assert row["lost"] == round(row["before"] * 40)
    assert row["p"] < 1e-6
    back = compared(worse, records).set_index(["model", "attack", "threat"])
    assert back.loc[("logistic", "noise", "linf:0.1"), "verdict"] == "better"


def test_numbers_on_the_page_are_those_of_the_tables(run: Path) -> None:
    folder = Results.open(run)
    found = Tables(page(folder)).found
    for name in ("worst_case", "summary", "gaps", "transfer", "pairs", "per_class"):
        table = folder.table(name).dropna(axis=1, how="all")
        table = table.drop(columns=[c for c in table.columns if c in RARE and not table[c].any()])
        heads, *rows = found[name]
        assert heads == [str(c).replace("_", " ") for c in table.columns]
        assert len(rows) == len(table)
        for shown, true in zip(rows, table.to_dict("records"), strict=True):
            for head, text in zip(table.columns, shown, strict=True):
                value = true[head]
                if isinstance(value, str | bool) or value is None:
                    assert text == str(value)
                elif text == "–":
                    assert np.isnan(value)
                elif text.endswith("%"):
                    assert float(text[:-2]) == pytest.approx(100 * value, abs=0.051)
                elif text == "∞":
                    assert np.isinf(value)
                else:
                    assert float(text.replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_the_page_reaches_for_nothing_and_says_what_was_found(run: Path) -> None:
    folder = Results.open(run)
    text = page(folder)
    parsed = Tables(text)
    assert parsed.links
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert parsed.scripts == 1
    assert len(text) < 5e6
    worst = folder.table("worst_case").set_index("model")
    said = verdict(folder)
    assert "Under linf:0.1, logistic keeps most" in said[0]
    assert f"{100 * worst.loc['logistic', 'robust']:.1f} %" in said[0]
    assert "exact" in said[0]
    assert said[1].startswith("Median smallest l2 perturbation found: logistic")
    assert any("not diagnosed" in warning for warning in warnings(folder))
    assert "the patch" not in text
    assert text.count('<article class="card">') == len(list((run / "pictures").iterdir()))


def test_nothing_of_a_run_is_ever_code(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    module = rb.TorchModel(_linear(), (1, 8, 8), name=f"{evil}|`x`\n$y$")
    data = rb.load_data("digits", samples=30)
    run_with(data, [module, "logistic"], ["fgsm"], ["linf:0.2"], out=tmp_path / "r", transfer=True)
    rebuild([Results.open(tmp_path / "r")], ("html", "md", "latex", "csv"))
    for name in ("report.html", "report.md"):
        assert evil not in (tmp_path / "r" / name).read_text()
    assert Tables((tmp_path / "r" / "report.html").read_text()).scripts == 1
    assert r"\$y\$" in (tmp_path / "r" / "tables" / "summary.tex").read_text()


def _linear() -> object:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_every_format_and_every_figure(run: Path, tmp_path: Path) -> None:
    written = rebuild(
        [Results.open(run), Results.open(run)],
        ("html", "md", "latex", "csv", "parquet", "png", "pdf"),
        tmp_path,
    )
    names = {file.relative_to(tmp_path).as_posix() for file in written}
    assert {"report.html", "report.md", "tables/summary.csv", "tables/summary.tex"} <= names
    folder = Results.open(run)
    assert pd.read_parquet(tmp_path / "tables" / "worst_case.parquet").equals(folder.table("worst_case"))
    assert f"tables/compared_{run.name}.csv" in names
    tex = (tmp_path / "tables" / "worst_case.tex").read_text()
    assert r"\toprule" in tex
    assert r"\bottomrule" in tex
    figures = list(drawn(folder))
    assert all(isinstance(figure, Figure) for _, _, figure in figures)
    groups = {group for group, _, _ in figures}
    assert {"", "Success against queries", "Sizes of perturbations", "From one model to another",
            "What broken samples are taken for"} == groups  # fmt: skip
    assert len([n for n in names if n.endswith(".png")]) == len(figures)
    with pytest.raises(InvalidParameter, match="format = 'doc'"):
        rebuild([Results.open(run)], ("doc",))
    with pytest.raises(RobustError, match="holds no run"):
        rebuild([Results.open(tmp_path)])


def test_the_command_on_the_page_makes_the_same_config(run: Path) -> None:
    config = read(run / "config.toml")
    words = shlex.split(command(config))
    assert words[:2] == ["robust", "run"]
    parsed = main.commands["run"].make_context("run", words[2:]).params  # type: ignore[attr-defined]
    again = {k: v for k, v in parsed.items() if v not in (None, ()) and k in make(config).model_dump()}
    assert make(again) == make(config)


def test_many_records_are_read_in_less_and_say_the_same(run: Path) -> None:
    files = sorted((run / "records").glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    whole, small = pd.concat([Results.open(run).records]), read_compact(files)
    assert small.memory_usage(deep=True).sum() < 0.5 * whole.memory_usage(deep=True).sum()
    order = ["model", "attack", "threat", "goal"]
    for name in ("summary", "worst_case", "transfer", "pairs", "per_class", "gaps"):
        by = [c for c in (*order, "source", "target", "first", "second", "label") if c in TABLES[name](whole)]
        one, two = (
            TABLES[name](r).astype(dict.fromkeys(by, str)).sort_values(by).reset_index(drop=True)
            for r in (whole, small)
        )
        pd.testing.assert_frame_equal(one, two, check_dtype=False, rtol=1e-5, atol=1e-6)


def test_a_leaderboard_ranks_by_the_worst_case_and_speaks_robustbench(run: Path) -> None:
    table = leaderboard([Results.open(run)])
    worst = Results.open(run).table("worst_case")
    assert table["best_known"].tolist() == sorted(worst["robust"], reverse=True)
    assert table["rank"].tolist() == [1, 2]
    assert table["autoattack"].isna().all()
    info = model_info(table)
    assert info[0]["eps"] == "0.1"
    assert info[0]["external"] == f"{100 * table['best_known'][0]:.2f}"
    assert info[0]["autoattack_acc"] == ""
    assert {"name", "clean_acc", "architecture", "additional_data", "dataset", "venue", "link"} <= set(
        info[0]
    )


def test_a_notebook_shows_rates_in_percent_and_no_code(run: Path) -> None:
    records = Results.open(run).records
    records["model"] = records["model"].replace("tree", "<b>tree</b>")
    shown = rb.Results(records, run, {}, {}).table("success")
    html = shown._repr_html_()
    assert f"{shown['success'][0]:.1%}" in html
    assert "<b>tree</b>" not in html
    assert isinstance(shown[shown["model"] == "logistic"], pd.DataFrame)


def test_the_commands(run: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        result = CliRunner().invoke(main, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert said("report", str(run), "--out", str(tmp_path)).strip().endswith("report.html")
    assert "Worst case" in said("show", str(run))
    assert "cp low" in said("show", str(run), "--table", "success")
    assert "logistic" in said("leaderboard", str(run))
    assert json.loads(said("leaderboard", str(run), "--json"))[0]["dataset"] == "digits"
    wrong = CliRunner().invoke(main, ["serve", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "no run in there" in wrong.output


def test_the_server_shows_runs_to_this_machine_and_nothing_else(run: Path, tmp_path: Path) -> None:
    secret = run.parent / "secret.txt"
    secret.write_text("secret")
    held = server([run], 0)
    port = held.server_address[1]
    assert held.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=held.serve_forever, daemon=True)
    thread.start()

    def get(path: str, host: str = "") -> tuple[int, bytes]:
        headers = {"Host": host} if host else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    try:
        assert b"first" in get("/")[1]
        assert b"Verdict" in get("/0/report.html")[1]
        assert get("/0/tables/summary.csv")[0] == 200
        for path in (
            "/1/report.html",
            "/0/../secret.txt",
            "/0/%2e%2e/secret.txt",
            "/secret.txt",
            "/0/records",
        ):
            assert get(path)[0] == 404
        assert get("/", "evil.example:80")[0] == 403
    finally:
        held.shutdown()
        held.server_close()


def test_who_waits_too_long_or_comes_too_late_is_sent_away(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "CLIENTS", 2)
    monkeypatch.setattr(serve._Handler, "timeout", 1.0)
    held = server([run], 0)
    address = ("127.0.0.1", int(held.server_address[1]))
    thread = threading.Thread(target=held.serve_forever, daemon=True)
    thread.start()

    def asked() -> bytes:
        with socket.create_connection(address, timeout=10) as one:
            one.sendall(b"GET / HTTP/1.0\r\nHost: localhost:1\r\n\r\n")
            found = b""
            while part := one.recv(1 << 16):
                found += part
        return found

    try:
        idle = [socket.create_connection(address, timeout=10) for _ in range(2)]  # who say nothing
        late = time.monotonic() + 10
        while not asked().startswith(b"HTTP/1.0 503") and time.monotonic() < late:
            time.sleep(0.02)
        assert time.monotonic() < late
        while not asked().startswith(b"HTTP/1.0 200") and time.monotonic() < late:
            time.sleep(0.1)
        assert time.monotonic() < late, "those who say nothing are gone after a while"
        assert b"script-src 'unsafe-inline'; base-uri 'none'" in asked()
        for one in idle:
            one.close()
    finally:
        held.shutdown()
        held.server_close()


def test_the_nearest_the_median_and_the_farthest_are_shown() -> None:
    records = pd.DataFrame({"success": [True, False, True, True], "linf": [0.3, 0.1, 0.1, 0.2], "l2": 1.0})
    assert chosen(records, "linf") == [2, 3, 0]
    assert chosen(records.iloc[:1], "linf") == [0]
    assert chosen(records.iloc[1:2], "linf") == []


def test_pictures_hold_what_they_say(run: Path) -> None:
    shown = list(Folder(run).pictures())
    assert shown
    for facts, arrays in shown:
        count = len(facts["label"])
        assert arrays["original"].shape == arrays["adversarial"].shape == (count, 1, 8, 8)
        change = np.abs(arrays["adversarial"] - arrays["original"]).max((1, 2, 3))
        assert change == pytest.approx(np.array(facts["linf"], dtype=float), abs=1e-6)
        assert arrays["occlusion"].shape == (2, 8, 8)
        # In the middle of the cut stands the sample itself, which the model has right.
        assert int(arrays["cut"][20, 20]) == facts["label"][0]
    assert {"saliency" in arrays for _, arrays in shown} == {True}
    paths = {str(facts["attack"][0]): arrays["margins"] for facts, arrays in shown if "margins" in arrays}
    assert set(paths) == {"iterative:steps=5"}
    margins = paths["iterative:steps=5"]
    assert len(margins) == 5
    assert margins[0].max() < 0 < margins.max()


def test_a_path_is_shown_as_images_that_move(run: Path) -> None:
    frames = {
        str(facts["attack"][0]): (arrays["frames"], arrays) for facts, arrays in Folder(run).pictures()
        if "frames" in arrays
    }  # fmt: skip
    assert set(frames) == {"iterative:steps=5"}
    path, arrays = frames["iterative:steps=5"]
    assert path.shape == (7, 1, 8, 8), "the sample, five steps, and what was found"
    assert np.array_equal(path[0], (arrays["original"][0] * 255).round().astype(np.uint8))
    assert np.array_equal(path[-1], (arrays["adversarial"][0] * 255).round().astype(np.uint8))
    page = (run / "report.html").read_text()
    held = re.search(r'data:image/png;base64,([^"]+)" alt="the first sample along', page)
    assert held is not None
    moving = Image.open(io.BytesIO(base64.b64decode(held[1])))
    assert moving.n_frames > 2  # type: ignore[attr-defined]


def test_powers_of_ten_are_written_as_numbers(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "forward passes a sample" in page
    assert "mathdefault" not in page


def test_the_path_shown_is_of_the_lane_that_came_furthest() -> None:
    data = rb.load_data("digits", samples=30)
    model = rb.load_model("cnn", data)
    clean = look_clean(model, data.x, data.y, data.ids)
    attack = get_attack("pgd:steps=6,restarts=5")
    work = Work(data, model, clean, attack, rb.parse_threat("linf:0.1"), parse_goal("untargeted"))
    told = 0
    for row in range(8):
        scores, path = path_of(work, row)
        margins = margin(scores[-1], data.y[row].expand(5))
        shown = margin(model.scores(path[-1:]), data.y[row : row + 1])
        assert shown.item() == pytest.approx(float(margins.max()), abs=1e-4)
        told += float(margins.max() - margins.min()) > 1e-3
    assert told, "all lanes came as far"
