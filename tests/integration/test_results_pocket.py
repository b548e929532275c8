"""Units of notebooks 08 and 09 on the pocket model: what is silenced, kept and trained is what is said to be."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from mipnb import trials
from mipnb.artefacts import write_json
from mipnb.evaluation import evaluate, score
from mipnb.evidence.ranked import Ranked
from mipnb.models import BRANCHES, ffns
from mipnb.params import Params
from mipnb.paths import NeuronPath
from mipnb.results import ablation, pointwise, relocated
from mipnb.results.setting import Setting, load_setting, some_questions
from mipnb.results.store import ITEMS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    run = tmp_path_factory.mktemp("run")
    (run / "01_vanilla_model").mkdir()
    write_json(run / "01_vanilla_model" / "model.json", {"folder": "data/pocket/vanilla"})
    params = Params(
        run_dir=str(run), n_eval_retain=2, edit_steps=1, forget_batch=2, retain_batch=2, neighbour_batch=2,
        n_locate_forget=4, n_locate_retain=4,
    )  # fmt: skip
    return load_setting(params, "08_pointwise", ("forget", "retain"), n_each=1)


def ranked(setting: Setting, branch: str) -> Ranked:
    networks = ffns(setting.model, branch)
    generator = torch.Generator().manual_seed(1)
    return Ranked("path", torch.rand(len(networks), networks[0].n_neurons, generator=generator))


def test_each_person_is_asked_so_many_questions_a_task(setting: Setting):
    asked = setting.asked["forget"]
    assert {len([q for q in asked if q.task == task]) for task in ("VQA", "QA", "VGEN", "GEN")} == {10}
    assert not [q for q in asked if q.task.startswith("CLOZE")]
    assert some_questions(asked, ("QA",), 1) == [q for q in asked if q.task == "QA"]


def test_keeping_the_whole_layer_is_the_vanilla_model_and_keeping_one_neuron_is_not(setting: Setting):
    free = {split: [q for q in group if q.task == "VGEN"] for split, group in setting.asked.items()}
    answers = evaluate(setting.model, setting.processor, free, 128, 20)
    vanilla = score(answers, method="vanilla", seed=0, **setting.labels)
    one = ranked(setting, "vision")
    whole, single = (pointwise.keep_only(setting, "vision", one, k) for k in (512, 1))
    assert whole.value.tolist() == vanilla.value.tolist()
    assert single[single.metric == "rougeL"].value.max() < vanilla[vanilla.metric == "rougeL"].value.min()
    assert set(whole.task) == {"VGEN"}, "text questions do not pass the vision tower"


def test_units_shared_between_processes_are_all_that_the_notebook_needs(setting: Setting, tmp_path):
    here = replace(setting, folder=tmp_path)
    rankings = {
        branch: [ranked(setting, branch), replace(ranked(setting, branch), draw=1)] for branch in BRANCHES
    }
    sizes = {"top 1": {"text": 1, "vision": 1}}
    units = pointwise.units(rankings, 512, sizes)
    assert len(units) == 2 * 2 + 1 + 3, "neurons that two rankings agree on are asked once"
    make = pointwise.unit_maker(here)
    for unit in units:
        make(unit)
    made = sorted((tmp_path / ITEMS).iterdir())
    assert len(made) == len(units)
    curves = pointwise.keep_curves(here, rankings, 512)
    changes = pointwise.prune_changes(here, rankings, sizes)
    assert sorted((tmp_path / ITEMS).iterdir()) == made, "nothing is left to be made"
    assert set(curves.k) == {1, 512}
    assert set(changes.pruned) == {"text", "vision", "both"}


def test_silent_vision_neurons_leave_text_questions_as_they_are(setting: Setting):
    asked = pointwise.in_own_words(setting)
    before = pointwise.gold_probabilities(setting, asked, {})
    silent = {"vision": ranked(setting, "vision").top([256] * 3)}
    after = pointwise.gold_probabilities(setting, asked, silent)
    pictured = before.task.isin(["VQA", "VGEN"])
    assert before[["split", "task", "person_id"]].equals(after[["split", "task", "person_id"]])
    assert before.probability[~pictured].tolist() == after.probability[~pictured].tolist()
    assert (before.probability[pictured] != after.probability[pictured]).all()
    assert before.probability.min() > 0.9, (
        "the gold answers are in the words of the vanilla model, which knows them"
    )


def test_own_words_are_taken_only_where_they_are_right(setting: Setting):
    question = next(q for q in setting.asked["forget"] if q.task == "VQA")
    wrong = next(option for option in question.options if option != question.answer)
    assert pointwise._said(question, f"It is {wrong}.").answer == question.answer
    assert pointwise._said(question, f"It is {question.answer}.").answer == f"It is {question.answer}."


@dataclass(frozen=True, eq=False)
class Watched(Setting):
    """Remembers the edits that it is asked with."""

    seen: list = field(default_factory=list)

    def results(self, method, seed, change=None):
        self.seen.append({part.name for part in change.slices})
        return super().results(method, seed, change)


@pytest.mark.parametrize(
    ("method", "text", "vision"),
    [
        ("text_only", True, False),
        ("vision_only", False, True),
        ("point_wise", True, True),
        ("nearest", True, True),
        ("nearest_prune", True, True),
    ],
)
def test_a_row_changes_the_branches_that_it_names(setting: Setting, method: str, text: bool, vision: bool):
    names = ("params", "folder", "model", "processor", "asked", "labels")
    watched = Watched(**{name: getattr(setting, name) for name in names})
    located = [
        NeuronPath(branch, tuple((0, 1) for _ in ffns(setting.model, branch)), 512, setting.mark)
        for branch in ("text", "vision")
    ]
    at = (located, trials.edit_config(setting.params), watched.batches())
    found = ablation.row_results(watched, method, 3, *at)
    (changed,) = watched.seen
    assert any("language_model" in name for name in changed) == text
    assert any("visual" in name for name in changed) == vision
    assert set(found.method) == {method}
    again = ablation.row_results(watched, method, 3, *at)
    assert len(watched.seen) == 1, "a finished unit is not trained again"
    assert again.value.tolist() == found.value.tolist()


def test_the_path_of_the_nearest_search_is_located_once_and_is_the_one_that_locating_by_it_gives(
    setting: Setting, tmp_path, monkeypatch
):
    sizes = {"text_top_k": 5, "vision_top_k": 3, "rule": "stieltjes"}
    here = replace(setting, folder=tmp_path, params=setting.params.model_copy(update=sizes))
    found = relocated.nearest_paths(here)
    by_hand = here.params.model_copy(update={"search": "shortlist", "rule": "right"})
    assert [path.layers for path in found] == [
        relocated.relocated_path(here, by_hand, branch).layers for branch in BRANCHES
    ]
    greedy = [relocated.relocated_path(here, here.params, branch).layers for branch in BRANCHES]
    assert [path.layers for path in found] != greedy
    monkeypatch.setattr(relocated, "relocated_path", None)
    again = relocated.nearest_paths(here)
    assert again == found
    for path in again:
        path.check(here.model)


def test_batches_live_as_long_as_the_states_that_know_them(setting: Setting):
    more = setting.params.model_copy(update={"edit_steps": 2})
    assert setting.batches() is setting.batches(setting.params)
    assert [len(part) for part in setting.batches(more)] > [len(part) for part in setting.batches()]
    assert setting.batches() is setting.made[1, 1]
