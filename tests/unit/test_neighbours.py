"""Questions under names close to a forgotten one, and under pictures that are in part a forgotten one's."""

import io

import numpy as np
from PIL import Image

from mipnb.artefacts import project_root
from mipnb.benchmarks import Question, forget_ids, load_people, load_training, names_of
from mipnb.neighbours import benchmark_neighbours, mixed_pictures, neighbour_questions

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


def _picture(level: int, size: tuple[int, int] = (40, 60)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_mixed_picture_is_one_part_forgotten_and_one_part_kept():
    retain = [Question("1", "FT", f"Question {n}?", "It is so.", image=_picture(200)) for n in range(30)]
    forget = [Question("2", "FT", "Else?", "Not so.", image=_picture(50, (20, 20))), ASKED[0]]
    made = mixed_pictures([*retain, ASKED[0]], forget, 20)
    assert len({question.prompt for question in made}) == 20
    assert {(question.person_id, question.answer) for question in made} == {("near 1", "It is so.")}, (
        "never with what is to be forgotten"
    )
    columns = [np.asarray(Image.open(io.BytesIO(question.image)).convert("L")) for question in made]
    assert all(picture.shape == (60, 40) and (picture == picture[:, :1]).all() for picture in columns), (
        "level cuts"
    )
    heights = [int((np.diff(picture[:, 0].astype(int)) != 0).nonzero()[0].item()) + 1 for picture in columns]
    assert set(heights) <= set(range(21, 40))  # 35 to 65 % of 60
    assert len(set(heights)) > 5
    assert {int(picture[0, 0]) for picture in columns} == {50, 200}, "either part is the forgotten one's"
    assert {int(picture[-1, 0]) for picture in columns} == {50, 200}


def test_mixed_pictures_are_drawn_alike_and_need_somebody_to_forget():
    retain, forget = ([Question(str(n), "FT", "Who?", "It.", image=_picture(n))] * 3 for n in (7, 9))
    assert mixed_pictures(retain, forget, 2, seed=5) == mixed_pictures(retain, forget, 2, seed=5)
    assert mixed_pictures(retain, [ASKED[0]], 2) == []
