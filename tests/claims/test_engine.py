import json
import re
from pathlib import Path

import pytest

from saccade.catalog import Method
from saccade.claims import charts, record
from saccade.claims.engine import reproduce
from saccade.claims.report import write_report
from tests.claims.toy import TOY

METHOD = Method("toy", "Toy", "A <toy> & its paper", "0000.00000", "metric", "Nothing.")
TOY_AT, BROKEN_AT = "tests.claims.toy:TOY", "tests.claims.toy:BROKEN"


def scores(result) -> dict:
    return {(cell.arm, cell.seed): cell.metrics for cell in result.cells}


def test_a_run_gives_every_cell_and_a_verdict(tmp_path: Path) -> None:
    result = reproduce(TOY_AT, out=tmp_path, jobs=0)
    assert len(result.cells) == 6
    assert result.verdict == "holds"
    assert json.loads((result.folder / "result.json").read_text())["verdict"] == "holds"


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    here = reproduce(TOY_AT, out=tmp_path / "a", jobs=0)
    there = reproduce(TOY_AT, out=tmp_path / "b", jobs=2)
    assert scores(here) == scores(there)


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = reproduce(TOY_AT, out=tmp_path, jobs=0, overrides={"count": str(log)})
    (first.folder / "cells" / "method-seed1.json").unlink()
    again = reproduce(TOY_AT, out=tmp_path, jobs=0, overrides={"count": str(log)})
    assert log.read_text().split().count("method-1") == 2
    assert log.read_text().split().count("method-0") == 1
    assert scores(first) == scores(again)


def test_a_half_written_result_is_not_taken_for_one(tmp_path: Path) -> None:
    first = reproduce(TOY_AT, out=tmp_path, jobs=0)
    cell = first.folder / "cells" / "base-seed0.json"
    cell.write_text(cell.read_text()[:40])
    assert scores(reproduce(TOY_AT, out=tmp_path, jobs=0)) == scores(first)


def test_other_settings_are_other_results(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reproduce(TOY_AT, out=tmp_path, jobs=0, overrides={"count": str(log), "steps": 1})
    reproduce(TOY_AT, out=tmp_path, jobs=0, overrides={"count": str(log), "steps": 2})
    assert len(log.read_text().split()) == 12


def test_the_arms_of_a_seed_share_what_is_built_once(tmp_path: Path) -> None:
    result = scores(reproduce(TOY_AT, out=tmp_path, jobs=0))
    assert result["method", 0]["score"] - result["base", 0]["score"] == pytest.approx(2.0)


def test_a_crash_keeps_the_other_cells_and_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"3 cell.s. failed.*the toy broke.*\.log"):
        reproduce(BROKEN_AT, out=tmp_path, jobs=2)
    assert len(list(tmp_path.rglob("base-seed*.json"))) == 3
    monkeypatch.setenv("TOY_WHOLE", "1")
    assert reproduce(BROKEN_AT, out=tmp_path, jobs=2).verdict == "holds"


def test_smoke_has_no_verdict(tmp_path: Path) -> None:
    result = reproduce(TOY_AT, out=tmp_path, jobs=0, budget="smoke")
    assert (result.verdict, result.seeds) == ("not judged", 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"on": "mars"}, ValueError, "no data 'mars'; there is embedded, real"),
        ({"on": "real"}, FileNotFoundError, "needs the folder 'nowhere'"),
        ({"seeds": 0}, ValueError, "number of seeds is 0"),
        ({"budget": "huge"}, ValueError, "smoke, small or full"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(tmp_path: Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        reproduce(TOY_AT, out=tmp_path, jobs=0, **arguments)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write into the output folder"):
        reproduce(TOY_AT, out=tmp_path / "file", jobs=0)


def test_the_report_holds_all_it_shows(tmp_path: Path) -> None:
    result = reproduce(TOY_AT, out=tmp_path, jobs=0)
    page = write_report(TOY, result, METHOD).read_text()
    assert "The claim holds" in page
    assert "A &lt;toy&gt; &amp; its paper" in page
    assert page.count("<svg") == 3
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert charts.INK not in page


def test_a_run_is_recorded_under_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "claims" / "ledger.json"
    ledger.parent.mkdir()
    ledger.write_text("{}")
    monkeypatch.setattr("saccade.ledger.CHECKOUT", ledger)
    result = reproduce(TOY_AT, out=tmp_path, jobs=0)
    record.record(TOY, result)
    entry = json.loads(ledger.read_text())["toy"]["embedded"]
    assert entry["verdict"] == "holds"
    assert entry["arms"]["method"]["paper"] == 7.0
    assert sorted(path.name for path in (tmp_path / "docs" / "assets").iterdir()) == ["toy-1.png", "toy-figures.png"]
    assert entry["arms"]["method"]["mean"] == pytest.approx(result.summary("method", "score")[0], abs=1e-4)


def test_a_smoke_run_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no verdict"):
        record.record(TOY, reproduce(TOY_AT, out=tmp_path, jobs=0, budget="smoke"))
