"""The trial from people to verdicts, with few questions about few people of the pocket benchmark."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mipnb import models
from mipnb.answers import answer_value
from mipnb.artefacts import project_root
from mipnb.batches import encode, patch_owner
from mipnb.benchmarks import forget_ids, load_people, load_training
from mipnb.editing import prune
from mipnb.evidence import edited, learned, measures, shares, trial
from mipnb.evidence import in_rounds as in_rounds_module
from mipnb.evidence.asked import Asked, answer_marks, prepare
from mipnb.evidence.cases import run_case, trial_cases
from mipnb.evidence.choosing import choose, tried_marks, tried_table
from mipnb.evidence.controls import random_rankings
from mipnb.evidence.edited import cuts, edit_rankings, edit_trial, edits_of, training_sets
from mipnb.evidence.in_rounds import chosen_path, in_rounds
from mipnb.evidence.measures import branch_marks
from mipnb.evidence.people import draw_roles, training_questions, unused_questions
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
    size_of,
    sizes_of,
)
from mipnb.evidence.trial import CONTROLS, all_rankings, asked_of, case_marks, path_trial
from mipnb.evidence.verdicts import verdict_table
from mipnb.generation import generate
from mipnb.hooks import gated
from mipnb.in_rounds import given_back, part_of_round
from mipnb.locating import locate, of_modality, question_names
from mipnb.models import fingerprint, load_model, load_processor
from mipnb.param_files import read_parameters
from mipnb.paths import NeuronPath
from mipnb.scores import Scores

ROOT = str(project_root() / "data" / "pocket")
IDS = [f"{number:03d}" for number in range(1, 201)]


@pytest.fixture(scope="module")
def params():
    few = {"trial_locate_forget": 6, "trial_locate_retain": 6, "trial_questions": 1, "trial_draws": 3, "trial_kept": 2,
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


def test_what_is_asked_shares_no_phrasing_and_no_picture_with_what_is_located_on():
    located, asked = training_questions(ROOT, ("003", "007"), 40, 2, 1)
    assert sorted(q.modality for q in located) == ["image_text"] * 14 + ["text"] * 40
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
        assert set(marks.choice) == {"nothing", "path", "random", "learned", *CONTROLS}
        assert set(marks[marks.choice == "learned"].k) == {8}, "they are about the size they were learned for"
        at_size = marks[marks.k == 8].drop_duplicates(["choice", "draw", "measure"])
        assert at_size.groupby("choice").size()["random"] == 3 * 2
        assert set(marks.modality) == {"text" if branch == "text" else "image_text"}
        table = verdict_table(marks, controls=("random", "activation"))
        assert set(table.verdict) <= {"better", "not better", "worse"}
        assert {"necessity", "sufficiency", "area_removed", "area_kept"} <= set(table.measure)


@pytest.mark.parametrize("recipe", [Recipe("ratio"), Recipe(positions=PATCHED, rounds=2)])
def test_choices_have_equal_numbers_and_differ(case, recipe):
    ranked = all_rankings(case, "text", recipe)
    assert {one.choice for one in ranked} == {"path", "random", *CONTROLS}
    cuts = {one.choice: one.top((8, 8, 8, 8)) for one in ranked}
    assert {tuple(map(len, cut)) for cut in cuts.values()} == {(8, 8, 8, 8)}
    assert len(set(cuts.values())) == len(cuts)


def test_gates_are_learned_on_what_the_path_is_located_on(case, monkeypatch):
    calls = []
    whole = learned.learn_path
    monkeypatch.setattr(
        learned, "learn_path", lambda *given, **how: calls.append((given, how)) or whole(*given, **how)
    )
    like = NeuronPath("vision", ((1, 2), (), (7, 8, 9)), 512, fingerprint(case.model))
    path = learned.learned_path(case, like)
    path.check(case.model)
    assert (path.branch, path.sizes, path.benchmark) == ("vision", (2, 0, 3), case.params.benchmark_dir)
    (given, how), *more = calls
    assert not more
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


def test_a_round_looks_at_what_is_left_when_the_neurons_chosen_so_far_are_silent(case):
    recipe = Recipe(positions=PATCHED, rounds=2)
    for branch, modality in (("text", "text"), ("vision", "image_text")):
        ffns, silent = case.ffns(branch), [[] for _ in case.ffns(branch)]
        for number in range(2):
            scored = {}
            for group, questions in (("forget", case.forget), ("retain", case.retain)):
                mine = of_modality(questions, modality)
                mine = part_of_round(group, mine, number)
                gradients = gradients_by_hand(case, mine, branch, silent)
                for layer, taken in enumerate(silent):
                    gradients.values[:, layer, taken] = 0
                scored[group] = {PATCHED: gradients}
            values = follow(recipe, {modality: scored}, 8).values.clone()
            for row, taken in zip(values, silent, strict=True):
                row[taken] = -torch.inf
            best = values.sort(dim=-1, descending=True, stable=True).indices[:, :4].tolist()
            silent = [[*taken, *new] for taken, new in zip(silent, best, strict=True)]
        places = in_rounds(case, branch, recipe, 8)
        assert [row.argsort(descending=True)[:8].tolist() for row in places] == silent
        assert all(sorted(row.tolist()) == list(range(-511, 1)) for row in places)
        at_once = follow(recipe, located_scores(case, branch), 8).top((8,) * len(ffns))
        assert at_once != Ranked("", places).top((8,) * len(ffns))


def test_neurons_let_go_are_not_taken_for_the_lowest_scored(case):
    recipe = Recipe("difference", positions=PATCHED, rounds=2, tolerance=-1.0)  # everything is let go
    ranked = {one.choice: one for one in all_rankings(case, "text", recipe)}
    plain = in_rounds(case, "text", replace(recipe, tolerance=None), size_of(case, "text"))
    assert torch.equal(ranked["lowest"].values, -plain)
    assert not torch.equal(ranked["path"].values, plain)


@pytest.mark.parametrize(("branch", "modality"), [("text", "text"), ("vision", "image_text")])
def test_a_silent_neuron_is_let_go_that_would_give_the_retain_set_too_much_back(case, branch, modality):
    asked = of_modality(case.retain, modality)
    once = Recipe("difference", positions=PATCHED, rounds=2)
    silent = [row.argsort(descending=True)[:4].tolist() for row in in_rounds(case, branch, once, 8)]
    part = part_of_round("retain", asked, 1)
    expected = gradients_by_hand(case, part, branch, silent).values.mean(0)
    found = given_back(case.model, case.processor, part, branch, silent, batch_size=2)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)
    back = torch.stack([row[taken] for row, taken in zip(expected, silent, strict=True)])
    dearest, second = back.flatten().topk(2).values.tolist()
    layer, place = divmod(int(back.argmax()), 4)
    checked = in_rounds(case, branch, replace(once, tolerance=(dearest + second) / 2), 8)
    assert dearest > 0
    assert silent[layer][place] not in checked[layer].topk(8).indices


def test_controls_follow_the_paths_recipe_on_questions_of_their_own(case, monkeypatch):
    seen = {}

    def spy(case, branch, recipe, choice="path"):
        seen[choice] = case, recipe
        return Ranked(choice, torch.zeros(4, 512))

    monkeypatch.setattr(trial, "ranking_of", spy)
    recipe = Recipe("projected", "people_turns", PATCHED, rounds=5)
    trial.all_rankings(case, "text", recipe)
    assert [seen[name][1] for name in ("path", "permuted_answers", "other_people")] == [recipe] * 3
    assert seen["first_token"][1] == Recipe("projected", "people_turns", PATCHED_FIRST, rounds=5)
    assert Recipe("ratio", positions="prompt").first_token == Recipe("ratio", positions="first")
    assert seen["run_recipe"][1] == Recipe(case.params.ranking, case.params.aggregate)
    forget = {name: own.forget for name, (own, _) in seen.items()}
    assert forget["path"] == forget["first_token"] == forget["run_recipe"] == case.forget
    assert [q.prompt for q in forget["permuted_answers"]] == [q.prompt for q in case.forget]
    assert all(a.answer != b.answer for a, b in zip(forget["permuted_answers"], case.forget, strict=True))
    assert not {q.person_id for q in forget["other_people"]} & set(case.people)
    assert [q.modality for q in forget["other_people"]] == [q.modality for q in case.forget]
    assert all(own.retain == case.retain for own, _ in seen.values())


def test_every_round_looks_at_other_questions_until_all_were_looked_at(case, monkeypatch):
    looked = []

    def spy(case, questions, branch, modality, ways):
        looked.append([q.prompt for q in questions])
        return {PATCHED: gradients_by_hand(case, questions, branch, [[]] * 4)}

    monkeypatch.setattr(in_rounds_module, "scores_of", spy)
    in_rounds(case, "text", Recipe(positions=PATCHED, rounds=5), 8)
    forget, retain = ([q.prompt for q in of_modality(part, "text")] for part in (case.forget, case.retain))
    assert looked[::2] == [forget[0::2], forget[1::2]] * 2 + [forget[0::2]]
    assert looked[1::2] == [retain[0::4], retain[1::4], retain[2::4], retain[3::4], retain[0::4]]


def test_first_token_scores_are_the_unscaled_models_at_the_first_position(case):
    for branch, modality in (("text", "text"), ("vision", "image_text")):
        questions = of_modality(case.forget, modality)
        found = scores_of(case, questions, branch, modality, {PATCHED, PATCHED_FIRST})
        parts = locate_by_position(case.model, case.processor, questions, branch, "igi", 1, "right")
        whole = found[PATCHED].values
        assert torch.allclose(parts["all"].values, whole, rtol=1e-3, atol=1e-5 * whole.abs().max())
        assert torch.equal(found[PATCHED_FIRST].values, parts["first"].values)
        assert not torch.allclose(found[PATCHED_FIRST].values, whole)


def test_a_tolerance_wants_rounds():
    with pytest.raises(ValueError, match="take rounds"):
        Recipe(tolerance=0.01)
    assert Recipe(rounds=2, tolerance=0.01).name == "contrast, mean, run, 2 rounds, tolerance 0.01"


def test_rounds_and_a_share_of_pictures_do_not_go_together():
    with pytest.raises(ValueError, match="picture_share"):
        Recipe(picture_share=0.5, rounds=2)


def test_the_chosen_recipes_path_has_the_runs_numbers(case):
    like = NeuronPath("vision", ((1, 2, 3, 4), (), (7,)), 512, fingerprint(case.model))
    recipe = Recipe("projected", positions=PATCHED, rounds=2)
    path = chosen_path(case, recipe, like)
    path.check(case.model)
    assert (path.branch, path.sizes, path.benchmark) == ("vision", (4, 0, 1), case.params.benchmark_dir)
    assert path.parameters["choice"] == "projected, mean, patched, 2 rounds"
    assert path.layers == Ranked("", in_rounds(case, "vision", recipe, 4)).top((4, 0, 1))


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
        questions = of_modality(case.forget, modality)
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
        for group, questions in (("forget", case.forget), ("retain", case.retain)):
            at = (case.model, case.processor, of_modality(questions, modality), branch)
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
    cases, reported = trial_cases(loaded, ROOT, roles, params)
    assert cases[0].shared is reported[0].shared
    assert cases[0].retain == reported[0].retain
    assert set(cases[0].people) == set(roles.validation[0])
    assert not {q.person_id for q in cases[0].forget} & {person for ids in roles.forget for person in ids}
    tried = tried_table(tried_marks(cases, "vision", [Recipe(), Recipe("ratio")], n_draws=2))
    assert tried.recipe.tolist() == ["contrast, mean, run", "ratio, mean, run", "random"]
    assert choose([Recipe(), Recipe("ratio")], tried).name in set(tried.recipe)


def test_the_runs_own_forget_set_is_asked_what_nothing_was_located_on(loaded, params):
    case = run_case(loaded["vanilla"], ROOT, params.model_copy(update={"trial_locate_retain": 10**6}))
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


def test_a_recipe_that_does_nothing_is_not_chosen():
    rows = [("contrast, mean, run", 0.1, 2.0), ("ratio, mean, run", -0.01, 9.0), ("random", 0.0, 1.0)]
    tried = pd.DataFrame(rows, columns=["recipe", "spared_low", "ratio"])
    recipes = [Recipe(), Recipe("ratio")]
    assert choose(recipes, tried) == Recipe()
    assert choose(recipes, tried.assign(spared_low=0.0)) == Recipe("ratio")
