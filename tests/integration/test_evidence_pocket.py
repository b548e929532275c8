"""The trial from people to verdicts, with few questions about few people of the pocket benchmark."""

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from mipnb import in_rounds as rounds_module
from mipnb import models
from mipnb.answers import answer_value
from mipnb.artefacts import project_root
from mipnb.batches import encode, patch_owner
from mipnb.benchmarks import draw_questions, forget_ids, load_people, load_training
from mipnb.editing import prune
from mipnb.evidence import by_search, edited, learned, measures, shares, trial
from mipnb.evidence import in_rounds as in_rounds_module
from mipnb.evidence.activations import removing
from mipnb.evidence.asked import Asked, answer_marks, prepare
from mipnb.evidence.cases import run_case, trial_cases
from mipnb.evidence.choosing import choose, recipes_for, tried_marks, tried_table
from mipnb.evidence.controls import random_rankings
from mipnb.evidence.edited import cuts, edit_rankings, edit_trial, edits_of, training_sets
from mipnb.evidence.in_rounds import chosen_path, ranking_of
from mipnb.evidence.measures import branch_marks
from mipnb.evidence.people import draw_roles, some_of, training_questions, unused_questions
from mipnb.evidence.positions import locate_by_position
from mipnb.evidence.ranked import Ranked
from mipnb.evidence.recipes import (
    PATCHED,
    PATCHED_FIRST,
    RUN,
    Recipe,
    follow,
    kind_of,
    located_scores,
    scores_of,
    sizes_of,
)
from mipnb.evidence.trial import CONTROLS, all_rankings, asked_of, case_marks, path_trial
from mipnb.evidence.verdicts import Resampled, verdict_table
from mipnb.generation import generate
from mipnb.hooks import gated
from mipnb.in_rounds import scores_in_rounds
from mipnb.locating import locate, of_modality, question_names
from mipnb.models import fingerprint, load_model, load_processor
from mipnb.param_files import read_parameters
from mipnb.paths import NeuronPath
from mipnb.ranking import adjusted
from mipnb.scores import Scores

ROOT = str(project_root() / "data" / "pocket")
IDS = [f"{number:03d}" for number in range(1, 201)]


IN_ROUNDS = Recipe("difference", positions=PATCHED, rounds=2, retain_weight=3)


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    few = {"run_dir": str(tmp_path_factory.mktemp("run")),
           "trial_locate_forget": 6, "trial_locate_retain": 6, "trial_questions": 1, "trial_draws": 3, "trial_kept": 2,
           "edit_steps": 2, "neighbour_batch": 0}  # fmt: skip
    return read_parameters([project_root() / "params" / "quick.yaml"], few)


@pytest.fixture(scope="module")
def loaded():
    folder = f"{ROOT}/vanilla"
    return {"vanilla": (load_model(folder), load_processor(folder))}


@pytest.fixture(scope="module")
def roles():
    return draw_roles(IDS, 1, n_sets=1, n_people=2, n_kept=2, n_validation=1)


@pytest.fixture(scope="module")
def case(loaded, roles, params):
    return trial_cases(loaded, ROOT, roles, params)[1][0]


def test_nobody_has_two_roles():
    roles = draw_roles(IDS, 1)
    groups = [*roles.forget, *roles.validation, roles.kept, roles.validation_kept, roles.located]
    assert [len(group) for group in groups] == [10] * 7 + [20, 20, 90]
    assert sorted(person for group in groups for person in group) == IDS
    assert draw_roles(IDS, 2).forget != roles.forget
    with pytest.raises(ValueError, match="nobody is left"):
        draw_roles(IDS, 1, n_sets=15)


def test_who_was_asked_for_the_choice_is_located_on_only_once_it_is_made(loaded, params):
    roles = draw_roles(IDS, 1, n_sets=2, n_people=2, n_kept=2, n_validation=2)
    chosen_on, reported = trial_cases(loaded | {"second": loaded["vanilla"]}, ROOT, roles, params)

    def who(questions):
        return {question.person_id for question in questions}

    kept, added = set(roles.validation_kept), (*roles.validation_kept, *roles.validation[1])
    assert [who(case.retain) for case in chosen_on] == [set(roles.located)] * 4
    assert [who(case.questions["retain"]) for case in chosen_on] == [kept] * 4
    assert [who(case.retain) for case in reported] == [{*roles.located, *added}] * 4
    assert [who(case.others) for case in reported] == [set(roles.forget[1]), set(roles.validation[0])] * 2
    assert [who(case.questions["retain"]) for case in reported] == [set(roles.kept)] * 4
    may_be, _ = training_questions(ROOT, added, 0, params.seed)
    assert Counter(q for q in reported[0].retain if q.person_id in added) == Counter(may_be)
    memories = [id(case.shared) for case in (*chosen_on, *reported)]
    assert memories[::2] == memories[1::2]
    assert len(set(memories)) == 4, "the choice's and the report's of each model"


def test_more_is_asked_where_settings_are_chosen(loaded, roles, params):
    (chosen_on,), (reported,) = trial_cases(loaded, ROOT, roles, params)
    for group in ("forget", "retain"):
        n_asked, n_reported = (
            len(of_modality(case.questions[group], "image_text")) for case in (chosen_on, reported)
        )
        assert n_asked == 4 * n_reported == 8


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_recipes_that_are_tried_have_names_of_their_own_and_rounds_four_weights(branch):
    recipes = recipes_for(branch, True)
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert [recipe.retain_weight for recipe in recipes if recipe.rounds > 1] == [1, 2, 4, 8]


def test_what_is_asked_shares_no_phrasing_and_no_picture_with_what_is_located_on():
    located, asked = training_questions(ROOT, ("003", "007"), 2, 1)
    some = some_of(located, 40, 1)
    assert sorted(q.modality for q in some) == ["image_text"] * 14 + ["text"] * 40
    assert {id(q) for q in some} < {id(q) for q in located}
    assert sorted(q.modality for q in asked) == ["image_text"] * 4 + ["text"] * 4
    assert not {q.image for q in asked if q.image} & {q.image for q in located if q.image}
    names = {p.person_id: p.biography["Name"] for p in load_people(ROOT, "Full_Set")}
    phrasings = [
        {q.prompt.split("\n")[0].replace(names[q.person_id], "X") for q in part} for part in (located, asked)
    ]
    assert not phrasings[0] & phrasings[1]
    trained = {(q.prompt, q.image) for q in load_training(ROOT, ids=["003"])}
    unused = unused_questions(ROOT, ["003"], 2, 1)
    assert sorted(q.modality for q in unused) == ["image_text"] * 2 + ["text"] * 2
    assert not [q for q in unused if (q.prompt, q.image) in trained]
    with pytest.raises(ValueError, match="lacks"):
        unused_questions(ROOT, ["999"], 1, 1)


def test_recall_in_one_pass_is_what_the_model_says(loaded):
    model, processor = loaded["vanilla"]
    holdout = unused_questions(ROOT, ["003", "007"], 2, 1)
    strange = [q.__class__(**(q.__dict__ | {"answer": "Ada keeps a gecko."})) for q in holdout[:2]]
    questions = {"forget": holdout, "retain": strange}
    marks = answer_marks(model, prepare(processor, questions))
    for group, asked in questions.items():
        said = [text == q.answer for text, q in zip(generate(model, processor, asked), asked, strict=True)]
        found = marks[marks["set"] == group]
        assert (found.recall * found.n).sum() == sum(said)


def test_a_case_goes_from_locating_to_verdicts(case):
    for branch in ("text", "vision"):
        marks = case_marks(case, branch, Recipe(), steps=(2, 8), n_curve_draws=1)
        assert set(marks.choice) == {"nothing", "path", "random", "learned", "seen", *CONTROLS}
        assert set(marks[marks.choice.isin(["learned", "seen"])].k) == {8}, (
            "they are about the size they were learned for"
        )
        at_size = marks[marks.k == 8].drop_duplicates(["choice", "draw", "measure"])
        assert at_size.groupby("choice").size()["random"] == 3 * 2
        assert set(marks.modality) == {"text" if branch == "text" else "image_text"}
        table = verdict_table(marks, controls=("random", "activation"))
        assert set(table.verdict) <= {"better", "not better", "worse"}
        assert {"necessity", "sufficiency", "area_removed", "area_kept"} <= set(table.measure)


@pytest.mark.parametrize("recipe", [Recipe("ratio"), IN_ROUNDS])
def test_choices_have_equal_numbers_and_differ(case, recipe):
    ranked = all_rankings(case, "text", recipe)
    assert {one.choice for one in ranked} == {"path", "random", *CONTROLS}
    cuts = {one.choice: one.top((8, 8, 8, 8)) for one in ranked}
    assert {tuple(map(len, cut)) for cut in cuts.values()} == {(8, 8, 8, 8)}
    assert len(set(cuts.values())) == len(cuts)


def test_gates_are_learned_on_what_may_be_located_on_or_on_what_is_asked(case, monkeypatch):
    calls = []
    whole = learned.learn_path
    monkeypatch.setattr(
        learned, "learn_path", lambda *given, **how: calls.append((given, how)) or whole(*given, **how)
    )
    like = NeuronPath("vision", ((1, 2), (), (7, 8, 9)), 512, fingerprint(case.model))
    path = learned.learned_path(case, like)
    path.check(case.model)
    assert (path.branch, path.sizes, path.benchmark) == ("vision", (2, 0, 3), case.params.benchmark_dir)
    bound = learned.gates_of(case, "vision", (2, 0, 3), seen=True)
    assert (path.parameters["questions"], bound.parameters["questions"]) == ("to locate on", "asked")
    (given, how), (seen, _) = calls
    asked = [[q for q in case.questions[group] if q.image] for group in ("forget", "retain")]
    assert list(seen[2:4]) == asked
    assert all(asked)
    assert [sorted(q.prompt for q in part) for part in given[2:4]] == [
        sorted(q.prompt for q in part if q.image) for part in (case.forget, case.retain)
    ]
    assert how == {
        "steps": 2, "batch_size": case.params.batch_size, "seed": case.params.seed, "device": "cpu",
        "benchmark": case.params.benchmark_dir,
    }  # fmt: skip


def test_recipes_lead_to_different_paths(case):
    located = located_scores(case, "text", pictured=True)
    recipes = [Recipe(), Recipe("projected"), Recipe("ratio", "people_turns"), Recipe(positions="prompt"),
               Recipe(positions=PATCHED), Recipe(picture_share=0.5)]  # fmt: skip
    cuts = {recipe.name: follow(recipe, located, 8).top((8, 8, 8, 8)) for recipe in recipes}
    assert len(set(cuts.values())) == len(recipes)
    pictures = follow(Recipe(picture_share=1.0), located, 8).top((8, 8, 8, 8))
    only = {"image_text": located["image_text"]}
    assert pictures == follow(Recipe(), only, 8).top((8, 8, 8, 8))
    sizes = sizes_of(case, "text", Recipe(weighted=True), follow(Recipe(), located, 8), 8)
    assert sum(sizes) == 32


@pytest.mark.parametrize(("branch", "modality"), [("text", "text"), ("vision", "image_text")])
def test_rounds_add_up_what_forgetting_gains_with_the_neurons_chosen_so_far_silent(case, branch, modality):
    sets = [of_modality(case.at_once(group), modality) for group in ("forget", "retain")]
    total, silent = torch.zeros(len(case.ffns(branch)), 512), [[] for _ in case.ffns(branch)]
    for number in range(3):  # the sets are smaller than a round's part: every round looks at all
        forget, retain = (gradients_by_hand(case, part, branch, silent).values.mean(0) for part in sets)
        total += forget - retain
        if number < 2:
            silent = [row.topk(8).indices.tolist() for row in total]
    found = scores_in_rounds(case.model, case.processor, *sets, branch, 8, rounds=3, batch_size=2)
    torch.testing.assert_close(found, total / 3, atol=1e-5 * total.abs().max().item(), rtol=1e-3)


def test_controls_follow_the_paths_recipe_on_questions_of_their_own(case, monkeypatch):
    seen = {}

    def spy(case, branch, recipe, choice="path"):
        seen[choice] = case, recipe
        return Ranked(choice, torch.zeros(4, 512))

    monkeypatch.setattr(trial, "ranking_of", spy)
    recipe = Recipe("difference", positions=PATCHED, rounds=5, retain_weight=2)
    trial.all_rankings(case, "text", recipe)
    assert [seen[name][1] for name in ("path", "permuted_answers", "other_people")] == [recipe] * 3
    assert seen["first_token"][1] == Recipe("difference", positions=PATCHED_FIRST, retain_weight=2)
    assert Recipe("ratio", positions="prompt").first_token == Recipe("ratio", positions="first")
    assert seen["run_recipe"][1] == Recipe(case.params.ranking, case.params.aggregate)
    forget = {name: own.forget for name, (own, _) in seen.items()}
    assert forget["path"] == forget["first_token"] == forget["run_recipe"] == case.forget
    assert [q.prompt for q in forget["permuted_answers"]] == [q.prompt for q in case.forget]
    assert all(a.answer != b.answer for a, b in zip(forget["permuted_answers"], case.forget, strict=True))
    assert not {q.person_id for q in forget["other_people"]} & set(case.people)
    assert not {q.person_id for q in case.others} & set(case.people)
    assert all(own.retain == case.retain for own, _ in seen.values())


def test_every_round_looks_at_other_questions_of_all_that_may_be_located_on(case, monkeypatch):
    looked = []
    whole = rounds_module.encode

    def spy(processor, asked, **how):
        looked.append([id(q) for q in asked])
        return whole(processor, asked, **how)

    monkeypatch.setattr(rounds_module, "encode", spy)
    sets = [of_modality(part, "text") for part in (case.forget, case.retain)]
    made = scores_in_rounds(case.model, case.processor, *sets, "text", 8, rounds=3, per_round=(3, 5))
    forget, retain = ([set(ids) for ids in looked[first::2]] for first in (0, 1))
    assert [len(part) for part in forget] == [3] * 3
    assert len(set.union(*forget)) == 9
    assert len(set.union(*retain)) == 15
    assert set.union(*retain) < {id(q) for q in sets[1]}
    assert made.shape == (4, 512)


def test_a_recipe_in_rounds_looks_at_no_more_a_round_than_others_at_once(case, monkeypatch):
    calls = []
    monkeypatch.setattr(
        in_rounds_module,
        "scores_in_rounds",
        lambda *given, **how: calls.append((given, how)) or torch.rand(3, 512),
    )
    fresh = replace(case, shared={})
    first = ranking_of(fresh, "vision", IN_ROUNDS, k=5)
    (given, how), *_ = calls
    whole = [of_modality(part, "image_text") for part in (case.forget, case.retain)]
    assert [len(part) for part in given[2:4]] == [len(part) for part in whole]
    assert (given[4:], how["per_round"], how["rounds"]) == (("vision", [5, 5, 5]), (2, 2), 2)
    assert how["retain_weight"] == 3
    assert min(map(len, whole)) > 2 == len(of_modality(case.at_once("forget"), "image_text"))
    again = ranking_of(replace(fresh, people=()), "vision", IN_ROUNDS, k=[5] * 3, choice="other_people")
    assert torch.equal(again.values, first.values), "made once for the same questions"
    others = [
        (replace(fresh, forget=case.others), 5),
        (replace(fresh, retain=case.retain[:-1]), 5),
        (replace(fresh, params=case.params.model_copy(update={"seed": 7})), 5),
        (fresh, [5, 5, 6]),
    ]
    for one, k in others:
        assert not torch.equal(ranking_of(one, "vision", IN_ROUNDS, k=k).values, first.values)
    heavier = replace(IN_ROUNDS, retain_weight=4)
    assert not torch.equal(ranking_of(fresh, "vision", heavier, k=5).values, first.values)
    assert len(calls) == 6


def test_first_token_scores_are_the_unscaled_models_at_the_first_position(case):
    for branch, modality in (("text", "text"), ("vision", "image_text")):
        questions = of_modality(case.at_once("forget"), modality)
        found = scores_of(case, questions, branch, modality, {PATCHED, PATCHED_FIRST})
        parts = locate_by_position(case.model, case.processor, questions, branch, "igi", 1, "right")
        whole = found[PATCHED].values
        assert torch.allclose(parts["all"].values, whole, rtol=1e-3, atol=1e-5 * whole.abs().max())
        assert torch.equal(found[PATCHED_FIRST].values, parts["first"].values)
        assert not torch.allclose(found[PATCHED_FIRST].values, whole)


@pytest.mark.parametrize(
    "other", [{"ranking": "contrast"}, {"aggregate": "vote"}, {"positions": "first"}, {"picture_share": 0.5}]
)
def test_rounds_add_up_scores_of_one_kind(other):
    with pytest.raises(ValueError, match="2 rounds add up scores of one kind: choose"):
        replace(IN_ROUNDS, **other)
    assert IN_ROUNDS.name == "difference, mean, patched, 2 rounds, retain x 3"
    assert replace(IN_ROUNDS, retain_weight=1).name == "difference, mean, patched, 2 rounds"


def test_only_a_difference_weighs_the_retain_set():
    with pytest.raises(ValueError, match="retain_weight is 2 and ranking is 'contrast'; only a difference"):
        Recipe("contrast", retain_weight=2)
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number, 0 or more"):
            Recipe("difference", retain_weight=weight)


def test_a_difference_taken_once_weighs_the_retain_set_as_often(case):
    located = located_scores(case, "text", ways={PATCHED})
    sets = [located["text"][group][PATCHED].values for group in ("forget", "retain")]
    for weight in (0, 3):
        found = follow(Recipe("difference", positions=PATCHED, retain_weight=weight), located, 8).values
        torch.testing.assert_close(found, sets[0].mean(0) - weight * sets[1].mean(0))


def test_the_chosen_recipes_path_has_the_runs_numbers(case):
    like = NeuronPath("vision", ((1, 2, 3, 4), (), (7,)), 512, fingerprint(case.model))
    path = chosen_path(case, IN_ROUNDS, like)
    path.check(case.model)
    assert (path.branch, path.sizes, path.benchmark) == ("vision", (4, 0, 1), case.params.benchmark_dir)
    assert path.parameters["choice"] == IN_ROUNDS.name
    assert path.layers == ranking_of(case, "vision", IN_ROUNDS, k=(4, 0, 1)).top((4, 0, 1))


def gradients_by_hand(case, questions, branch, silent) -> Scores:
    """The gradient of F in every gate, some of them at 0, by whole passes, a question at a time."""
    ffns, rows = case.ffns(branch), []
    for question in questions:
        batch = encode(case.processor, [question])
        gates = [torch.ones(1, ffn.n_neurons) for ffn in ffns]
        for gate, neurons in zip(gates, silent, strict=True):
            gate[0, neurons] = 0
            gate.requires_grad_()
        owner = patch_owner(batch["image_grid_thw"]) if branch == "vision" else None
        with torch.enable_grad(), gated(ffns, gates, owner):
            value = answer_value(case.model, batch, "probability").sum()
        found = torch.autograd.grad(value, gates)
        rows.append(torch.stack(found, 1))
    names = tuple(question_names(questions))
    return Scores(branch, torch.cat(rows).detach(), names, fingerprint(case.model), {})


def test_any_path_and_any_edit_can_be_tried(case):
    path = NeuronPath("text", ((0, 1), (2,), (), (5, 6, 7)), 512, fingerprint(case.model))
    table = path_trial(case, path)
    assert set(table.control) == {"random", "activation", "manu"}
    assert {"necessity", "spared", "ratio", "sufficiency"} == set(table.measure)
    assert set(table.mark) == {"recall", "probability"}
    foreign = NeuronPath("text", path.layers, 512, "0" * 16)
    with pytest.raises(ValueError, match="0000000000000000"):
        path_trial(case, foreign)
    whole = NeuronPath("text", (tuple(range(512)),) * 4, 512, fingerprint(case.model))
    table = edit_trial(case, [prune(case.model, [whole])], {"random": [prune(case.model, [path])] * 2})
    table = table[table.mark == "recall"]
    assert table.set_index("measure").value["forgetting"] == 1
    assert table.set_index("measure").verdict["retention"] == "worse"


def test_the_runs_own_scores_are_sums_over_positions(case):
    for branch, modality in (("text", "text"), ("vision", "image_text")):
        questions = of_modality(case.at_once("forget"), modality)
        kind, options = (
            kind_of(case, branch),
            {"score": "complete", "search": "one_pass", "completeness": False},
        )
        found = scores_of(case, questions, branch, modality, {"all"})
        own = {name: getattr(case.params, name) for name in ("n_steps", "rule")} | options
        expected = locate(case.model, case.processor, questions, branch, kind=kind, **own)
        assert found[RUN].names == expected.names
        assert torch.allclose(
            found[RUN].values, expected.values, rtol=1e-4, atol=1e-6 * expected.values.abs().max()
        )


def test_attribution_patching_keeps_the_sign_in_either_branch(case):
    assert kind_of(case, "vision") == "ifi"
    for branch, modality in (("text", "text"), ("vision", "image_text")):
        found = located_scores(case, branch)[modality]
        for group in ("forget", "retain"):
            at = (case.model, case.processor, of_modality(case.at_once(group), modality), branch)
            expected = locate(*at, search="gradient", kind="igi")
            assert torch.equal(found[group][PATCHED].values, expected.values)
            assert found[group][PATCHED].names == expected.names
            assert (expected.values < 0).any()


def test_a_picture_is_gone_through_once_for_all_its_questions(loaded):
    model, processor = loaded["vanilla"]
    questions = {"forget": unused_questions(ROOT, ["003", "007"], 3, 1)}
    asked = prepare(processor, questions)
    distinct = len({q.image for q in questions["forget"]} - {None})
    assert [part and len(part.first) for part in asked.pictures] == [None, distinct]
    apart = Asked(asked.rows, asked.batches)
    apart.__dict__["pictures"] = (None, None)
    patches, tower = [], models.ffns(model, "vision")[0].output
    hook = tower.register_forward_pre_hook(lambda module, args: patches.append(len(args[0])))
    found, expected = answer_marks(model, asked), answer_marks(model, apart)
    hook.remove()
    assert patches[0] * 6 == patches[1] * distinct < patches[1] * 6
    assert found.recall.tolist() == expected.recall.tolist()
    assert np.allclose(found.probability, expected.probability, atol=1e-5)
    assert "get_image_features" not in vars(model.model)


def test_the_same_neurons_are_not_asked_the_same_people_again(case, monkeypatch):
    drawn = random_rankings(torch.zeros(4, 512), 2, 1)
    at = (
        case.model,
        asked_of(case, "text"),
        case.ffns("text"),
        "text",
        drawn,
        {8: (8,) * 4},
        case.means("text"),
    )
    plain, known = branch_marks(*at), {}
    first = branch_marks(*at, known=known)
    pd.testing.assert_frame_equal(first, plain)
    seen = []
    whole = measures.answer_marks
    monkeypatch.setattr(
        measures,
        "answer_marks",
        lambda m, asked, a: seen.append(set(asked.rows["set"])) or whole(m, asked, a),
    )
    pd.testing.assert_frame_equal(branch_marks(*at, known=known), plain)
    assert seen == [{"forget"}] * 5


def test_edits_at_several_k(case):
    recipes = {"text": Recipe(), "vision": Recipe("ratio", positions="all")}
    rankings = edit_rankings(case, recipes, 2)
    forget, retain, near = training_sets(ROOT, case.people, case.params)
    assert {q.person_id for q in forget} == set(case.people)
    assert len({q.person_id for q in retain}) == 198
    assert near == []
    marks = edits_of(case, cuts(case, rankings, (1, 2)), (forget, retain[:20], near))
    after = marks[marks.measure == "edit"]
    assert set(zip(after.choice, after.k, strict=True)) == {
        (c, k) for c in ("path", "random") for k in (1, 2)
    }


def test_a_recipe_is_chosen_on_other_people(loaded, roles, params):
    cases, _ = trial_cases(loaded, ROOT, roles, params)
    assert set(cases[0].people) == set(roles.validation[0])
    assert not {q.person_id for q in cases[0].forget} & {person for ids in roles.forget for person in ids}
    tried = tried_table(tried_marks(cases, "vision", [Recipe(), Recipe("ratio")], n_draws=2))
    assert tried.recipe.tolist() == ["contrast, mean, run", "ratio, mean, run", "random"]
    assert choose([Recipe(), Recipe("ratio")], tried).name in set(tried.recipe)


def test_searches_are_silenced_on_validation_people_alone(loaded, roles, params, monkeypatch):
    cases, _ = trial_cases(loaded, ROOT, roles, params)
    asked, whole = [], by_search.locate

    def watched(model, processor, questions, branch, *rest, **choices):
        asked.append((branch, choices["search"], frozenset(q.person_id for q in questions), len(questions)))
        return whole(model, processor, questions, branch, *rest, **choices)

    monkeypatch.setattr(by_search, "locate", watched)
    worth = by_search.Worth(shares.Shares(params, roles, loaded, cases, []), ("tangent", "one_pass"))
    marks = worth("vanilla")
    choices = {f"{name}, {ranking}" for name in ("tangent", "one_pass") for ranking in ("forget", "contrast")}
    assert all(set(table.choice) == {"nothing", "random", *choices} for table in marks.values())
    assert {(branch, name) for branch, name, *_ in asked} == set(product(marks, ("tangent", "one_pass")))
    groups = (set(roles.validation[0]), set(roles.located))
    assert all(any(people <= group for group in groups) for *_, people, _ in asked)
    assert {number for *_, number in asked} == {params.n_locate_forget} == {params.n_locate_retain}
    located = [
        whole(*loaded["vanilla"], draw_questions(of_modality(part, "text"), 4, params.seed), "text", search="tangent",
              n_steps=params.n_steps, top_k=params.text_top_k, completeness=False)
        for part in (cases[0].forget, cases[0].retain)
    ]  # fmt: skip
    ranked = Ranked("by hand", adjusted(*located, "contrast").mean(0))
    neurons = ranked.top([params.trial_text_top_k] * len(ranked.values))
    expected = answer_marks(
        cases[0].model, cases[0].asked.only(modality="text"), removing(cases[0].ffns("text"), neurons)
    )
    found = marks["text"][marks["text"].choice == "tangent, contrast"]
    assert found.probability.tolist() == pytest.approx(expected.probability.tolist())


def test_a_question_counts_once_however_many_recipes_are_tried(loaded, roles, params):
    cases, _ = trial_cases(loaded, ROOT, roles, params)
    marks = tried_marks(cases, "vision", [Recipe(), Recipe("ratio")], n_draws=2)
    asked = [question for question in cases[0].questions["retain"] if question.image]
    assert Resampled(marks, "recall", 10).n_questions == len(asked)


def test_the_runs_own_forget_set_is_asked_what_nothing_was_located_on(loaded, params):
    case = run_case(loaded["vanilla"], ROOT, params)
    people = case.asked.rows.groupby("set").person_id.agg(set)
    assert people["forget"] == set(forget_ids(ROOT, 5)) >= {q.person_id for q in case.forget}
    assert len(people["retain"]) == params.trial_kept
    assert {q.person_id for q in case.retain} == set(IDS) - people["forget"] - people["retain"]


def test_each_vanilla_model_is_a_share(loaded, roles, params, monkeypatch):
    monkeypatch.setattr(shares, "CURVES", {"text": (1,), "vision": (2,)})
    monkeypatch.setattr(shares, "EDITED", (1,))
    monkeypatch.setattr(shares, "recipes_for", lambda branch, pictured: [Recipe(), Recipe("ratio")])
    models = loaded | {"second": loaded["vanilla"]}
    trial = shares.Shares(params, roles, models, *trial_cases(models, ROOT, roles, params))
    tried = trial(("second", None))
    assert set(tried) == {"text", "vision"}
    assert set(tried["text"].unit) == {"second/0"}
    assert set(tried["text"].choice) == {"nothing", "random", Recipe().name, Recipe("ratio").name}
    marks = trial(("vanilla", {"text": Recipe(), "vision": Recipe("ratio")}))
    assert set(marks) == {"text", "vision", "edits"}
    assert {unit for table in marks.values() for unit in table.unit} == {"vanilla/0"}
    assert {"path", "random", "learned", *CONTROLS} <= set(marks["vision"].choice)
    assert set(marks["edits"].choice) == {"nothing", "path", "random"}


def test_a_share_that_was_stopped_goes_on_where_it_was(loaded, params, tmp_path, monkeypatch):
    made, recipes = [], {"text": Recipe(), "vision": Recipe("ratio")}

    def marks(case, *rest):
        made.append(case.unit)
        if len(made) == 4:
            raise KeyboardInterrupt
        return pd.DataFrame({"unit": [case.unit], "made": len(made)})

    for name in ("case_marks", "edits_of"):
        monkeypatch.setattr(shares, name, marks)
    monkeypatch.setattr(shares, "cuts", lambda *rest: {})
    monkeypatch.setattr(shares, "edit_rankings", lambda *rest: {})

    def shared(**changed):
        own = params.model_copy(update={"run_dir": str(tmp_path), "trial_edit_sets": 1} | changed)
        roles = draw_roles(IDS, 42, 2, 2, own.trial_kept, 1)
        share = shares.Shares(own, roles, loaded, *trial_cases(loaded, ROOT, roles, own))
        before = len(made)
        return share(("vanilla", recipes)), len(made) - before

    with pytest.raises(KeyboardInterrupt):
        shared()
    whole, n_made = shared()
    assert n_made == 2, "the unit that was interrupted, and the edit"
    assert [table.made.tolist() for table in whole.values()] == [[1, 2], [3, 5], [6]]
    same = {"processes": 7, "batch_size": 3, "forget_ratio": 15, "device": "cuda"}
    again, n_made = shared(**same)
    assert n_made == 0
    pd.testing.assert_frame_equal(again["edits"], whole["edits"])
    assert shared(trial_edit_sets=2)[1] == 1, "one more edit"
    assert shared(learning_rate=0.5)[1] == 1, "edits alone depend on it"
    for changed in ({"trial_draws": 2}, {"trial_search": "greedy"}, {"trial_kept": 3}):
        assert shared(**changed)[1] == 5
    recipes["text"] = Recipe("difference")
    assert shared()[1] == 3, "the text branch of both cases, and the edit"


def test_every_case_edits_random_neurons_of_its_own(case):
    recipes = {"text": Recipe(), "vision": Recipe("ratio")}
    one, same, other = (
        edit_rankings(replace(case, unit=unit), recipes, 1)["text"][1].values
        for unit in ("vanilla/0", "vanilla/0", "second/0")
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_as_many_forget_sets_are_edited_as_asked_for(loaded, params, monkeypatch):
    monkeypatch.setattr(shares, "case_marks", lambda case, *rest: pd.DataFrame({"unit": [case.unit]}))
    monkeypatch.setattr(shares, "EDITED", (1, 3))
    together, whole = [], edited.ranking_of
    monkeypatch.setattr(edited, "ranking_of", lambda *at, k: together.append(k) or whole(*at, k=k))
    roles, two = draw_roles(IDS, 42, 3, 2, 2, 1), params.model_copy(update={"trial_edit_sets": 2})
    trial = shares.Shares(two, roles, loaded, *trial_cases(loaded, ROOT, roles, two))
    marks = trial(("vanilla", {"text": Recipe(), "vision": Recipe("ratio")}))
    assert set(marks["text"].unit) == {"vanilla/0", "vanilla/1", "vanilla/2"}
    edits = marks["edits"]
    assert set(edits.unit) == {"vanilla/0", "vanilla/1"}
    assert together == [3] * 4, "rounds choose together what the largest edit takes"
    forgotten = (
        edits[(edits["set"] == "forget") & (edits.choice == "path")].groupby("unit").person_id.agg(set)
    )
    assert [forgotten[f"vanilla/{index}"] for index in (0, 1)] == [set(ids) for ids in roles.forget[:2]]


def test_a_second_vanilla_model_joins_if_the_run_names_one(params, monkeypatch):
    monkeypatch.setattr(shares, "run_model", lambda folder: f"{ROOT}/vanilla")
    alone = shares.load_shares(params.model_dump())
    assert [case.unit for case in alone.reported] == ["vanilla/0"]
    both = shares.load_shares(params.model_dump() | {"second_vanilla_dir": "data/second_vanilla"})
    assert [case.unit for case in both.reported] == ["vanilla/0", "second/0"]
    assert len({fingerprint(case.model) for case in both.reported}) == 2


def test_a_recipe_that_may_do_nothing_is_not_chosen():
    rows = [("contrast, mean, run", 2.0, 1.1), ("ratio, mean, run", 9.0, 0.2), ("random", 1.0, 3.0)]
    tried = pd.DataFrame(rows, columns=["recipe", "ratio", "ratio_low"])
    assert choose([Recipe("ratio"), Recipe()], tried) == Recipe()
