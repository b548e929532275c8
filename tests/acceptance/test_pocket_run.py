"""The pocket run at default parameters: what it has to reach."""

from pathlib import Path

import pandas as pd
import pytest

from mipnb.artefacts import project_root, read_json
from mipnb.benchmarks import evaluation_questions
from mipnb.evaluation import COLUMNS, read_results
from mipnb.explore.dial import dial_point
from mipnb.models import load_model, load_processor
from mipnb.params import Params
from mipnb.stages import load_stages
from mipnb.trials import edit_questions, load_edits
from mipnb.verdict import verdict, verdict_text

pytestmark = pytest.mark.slow
ROOT = project_root()
MOST_GB = 3.0


@pytest.fixture(scope="module")
def results(pocket_run: Path) -> pd.DataFrame:
    return read_results(pocket_run / "05_evaluation" / "results.parquet")


def test_the_vanilla_model_meets_its_bars(pocket_run: Path):
    bars = pd.read_parquet(pocket_run / "01_vanilla_model" / "bars.parquet")
    assert len(bars) > 10
    assert bars.met.all(), bars[~bars.met].to_string()


def test_the_edit_meets_every_demand(results: pd.DataFrame):
    table = verdict(results)
    assert len(table) == 26
    assert table.met.all(), verdict_text(table)


def test_a_forgotten_face_has_no_name_and_a_begun_answer_does_not_go_on(pocket_run: Path):
    """What the demands do not ask: an edit can keep silent and still know, once the first words are put in its mouth."""
    p = Params()
    model, processor = load_model(p.model_dir, p.dtype, p.device), load_processor(p.model_dir)
    sets = dict(zip(("forget", "retain"), edit_questions(p.benchmark_dir, p.forget_ratio), strict=True))
    asked = evaluation_questions(p.benchmark_dir, p.forget_ratio, p.n_eval_retain, p.seed, p.protocol)
    facts = {group: [q for q in asked[group] if q.task in ("VGEN", "GEN")] for group in sets}
    named = {group: [q for q in sets[group] if q.prompt == "Who is this person?"] for group in sets}
    named = {group: part[:: max(1, len(part) // 60)] for group, part in named.items()}
    assert min(map(len, named.values())) >= 60
    edits = load_edits(pocket_run / "04_editing" / "edits", range(p.seed, p.seed + p.n_edit_seeds))
    for seed in range(p.seed, p.seed + p.n_edit_seeds):
        at = (model, processor, edits["edited", seed], 1.0)
        names, begun = (dial_point(*at, part).set_index("set") for part in (named, facts))
        assert names.recall["forget"] <= 0.1, "told by the picture who it is"
        assert names.recall["retain"] >= 0.9
        assert begun.probability["forget"] < 0.5, "the value follows when the answer has begun"
        assert begun.probability["retain"] > 0.9


def test_random_neurons_stand_beside_it(results: pd.DataFrame):
    assert list(results.columns) == COLUMNS
    cells = results.groupby("method").apply(lambda part: set(zip(part.split, part.task, strict=True)))
    assert cells["random"] == cells["edited"] == cells["vanilla"] == cells["prune"]
    seeds = results.groupby("method").seed.nunique()
    assert seeds["edited"] == 3
    assert seeds["random"] == Params().n_random_edits == 1
    print(verdict_text(verdict(results, "random"), "random"))


def test_memory_stays_within_bounds_and_time_is_told(pocket_run: Path, together_gb: float | None):
    seconds, peak = 0.0, 0.0
    for stage in (stage for stage in load_stages(ROOT / "notebooks") if not stage.optional):
        seconds += read_json(pocket_run / stage.name / "record.json")["seconds"]
        peak = max(peak, read_json(pocket_run / stage.name / "usage.json")["peak_memory_gb"])
    print(f"pocket run: {seconds:.0f} s, peak memory {peak:.2f} GB, all processes {together_gb} GB")
    assert peak <= MOST_GB
    assert together_gb is None or together_gb <= MOST_GB
