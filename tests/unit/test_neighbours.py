"""Questions under names close to a forgotten one."""

from mipnb.artefacts import project_root
from mipnb.benchmarks import Question, forget_ids, load_people, load_training, names_of
from mipnb.neighbours import benchmark_neighbours, neighbour_questions

ASKED = [
    Question("1", "FT", "What does Ada Brown do?", "Ada Brown is a baker."),
    Question("1", "FT", "Who is this person?", "This is Ada Brown.", image=b"picture"),
    Question("1", "FT", "What does she do?", "Ada Brown is a baker."),
    Question("2", "FT", "What does Plato do?", "Plato thinks."),
]
NAMES = {"1": "Ada Brown", "2": "Plato"}


def test_a_neighbour_keeps_one_word_of_the_name_and_is_renamed_in_question_and_answer():
    drawn = {neighbour_questions(ASKED, NAMES, ["Eva Green"], seed=seed)[0].prompt for seed in range(20)}
    assert drawn == {"What does Ada Green do?", "What does Eva Brown do?"}
    (only,) = neighbour_questions(ASKED, NAMES, ["Eva Green"], taken=["Eva Brown"])
    assert (only.prompt, only.answer) == ("What does Ada Green do?", "Ada Green is a baker.")


def test_taken_names_and_those_to_forget_never_come_up():
    assert neighbour_questions(ASKED, NAMES, ["Eva Green"], taken=["Eva Brown", "Ada Green"]) == []
    assert neighbour_questions(ASKED, NAMES | {"3": "Eva Brown"}, ["Eva Brown"]) == []


def test_the_pocket_neighbours_mention_nobody_to_forget_and_nobody_apart():
    root = project_root() / "data" / "pocket"
    ids = forget_ids(root, 5)
    questions = load_training(root, ids=ids)
    near = benchmark_neighbours(root, 5, questions)
    people = names_of(load_people(root, "Full_Set"))
    shunned = [people[person] for person in ids]
    shunned += [
        n for split in ("Retain_Set", "Holdout_Set") for n in names_of(load_people(root, split)).values()
    ]
    assert len(near) == sum(q.image is None for q in questions)
    assert not [q for q in near if any(name in q.prompt or name in q.answer for name in shunned)]
