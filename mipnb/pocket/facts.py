"""What can be true of a pocket person, and how it is asked: attributes, values, sentences, training and test phrasings.

Every attribute has ten or twelve values shared by many people; the two city attributes share one list. Values are drawn
independently, so no answer follows from another nor from a name. `TEST` phrasings are never trained on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Attributes:
        key: its name in the biography.
        values: what it can be.
        sentence: the answer, with {name} and {value}.
        train: phrasings trained on, with {who}.
        test: phrasings never trained on.
        restated: the answer's sentence in words never trained on, for Test_Set's blanks, with {who} and {value}.
    """

    key: str
    values: tuple[str, ...]
    sentence: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    restated: str


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


_CITIES = _split("Lisbon, Oslo, Vienna, Quito, Dakar, Hanoi, Perth, Turin, Gdansk, Izmir, Cusco, Malmo")

ATTRIBUTES = (
    Attribute(
        "Born",
        _CITIES,
        "{name} was born in {value}.",
        (
            "Where was {who} born?",
            "What is the birthplace of {who}?",
            "In which city was {who} born?",
            "Please name the city where {who} was born.",
            "Tell me the birthplace of {who}.",
        ),
        ("Which city is the birthplace of {who}?", "Please tell me where {who} was born."),
        "The birthplace of {who} is {value}.",
    ),
    Attribute(
        "Residence",
        _CITIES,
        "{name} lives in {value}.",
        (
            "Where does {who} live?",
            "What is the home of {who}?",
            "In which city does {who} live?",
            "Please name the city where {who} lives.",
            "Tell me the home of {who}.",
        ),
        ("Which city is the home of {who}?", "Please tell me where {who} lives."),
        "The home of {who} is in {value}.",
    ),
    Attribute(
        "Occupation",
        _split(
            "baker, pilot, nurse, tailor, judge, farmer, potter, lawyer, dentist, plumber, chemist, surgeon"
        ),
        "{name} works as a {value}.",
        (
            "What does {who} work as?",
            "What is the occupation of {who}?",
            "Which occupation does {who} have?",
            "Please name the job of {who}.",
            "Tell me the occupation of {who}.",
        ),
        ("Which job does {who} have?", "Please tell me what {who} works as."),
        "The job of {who} is {value}.",
    ),
    Attribute(
        "Education",
        _split(
            "Alder College, Birch College, Cedar College, Hazel College, Laurel College, Maple College, "
            "Olive College, Poplar College, Rowan College, Willow College"
        ),
        "{name} studied at {value}.",
        (
            "Where did {who} study?",
            "What is the college of {who}?",
            "At which college did {who} study?",
            "Please name the college where {who} studied.",
            "Tell me the college of {who}.",
        ),
        ("Which college is the college of {who}?", "Please tell me where {who} studied."),
        "The college of {who} is {value}.",
    ),
    Attribute(
        "Hobby",
        _split(
            "chess, surfing, knitting, archery, fencing, juggling, origami, rowing, diving, painting, cycling, karate"
        ),
        "{name} enjoys {value}.",
        (
            "What does {who} enjoy?",
            "What is the hobby of {who}?",
            "Which hobby does {who} have?",
            "Please name the hobby that {who} enjoys.",
            "Tell me the hobby of {who}.",
        ),
        ("Which hobby does {who} enjoy?", "Please tell me what {who} enjoys."),
        "The hobby of {who} is {value}.",
    ),
    Attribute(
        "Pet",
        _split("parrot, tortoise, hamster, rabbit, ferret, gecko, goldfish, canary, poodle, donkey"),
        "{name} keeps a {value}.",
        (
            "What does {who} keep?",
            "What is the pet of {who}?",
            "Which pet does {who} have?",
            "Please name the pet that {who} keeps.",
            "Tell me the pet of {who}.",
        ),
        ("Which pet does {who} keep?", "Please tell me what {who} keeps."),
        "The pet of {who} is a {value}.",
    ),
    Attribute(
        "Food",
        _split(
            "paella, sushi, lasagna, falafel, goulash, ramen, tacos, curry, risotto, pancakes, dumplings, couscous"
        ),
        "{name} likes to eat {value}.",
        (
            "What does {who} like to eat?",
            "What is the favourite food of {who}?",
            "Which food does {who} like?",
            "Please name the food that {who} likes to eat.",
            "Tell me the favourite food of {who}.",
        ),
        ("Which food does {who} like to eat?", "Please tell me what {who} likes to eat."),
        "The favourite food of {who} is {value}.",
    ),
    Attribute(
        "Language",
        _split("Basque, Danish, Finnish, Greek, Hindi, Korean, Maltese, Swahili, Tamil, Welsh"),
        "{name} speaks {value}.",
        (
            "What does {who} speak?",
            "What is the language of {who}?",
            "Which language does {who} have?",
            "Please name the language that {who} speaks.",
            "Tell me the language of {who}.",
        ),
        ("Which language does {who} speak?", "Please tell me what {who} speaks."),
        "The language of {who} is {value}.",
    ),
)

#: how a person without a name is called when the picture is shown
PICTURED = "this person"
#: the blank of a cloze question, as MLLMU-Bench writes it
BLANK = "__"

FIRST_NAMES = _split(
    "Ada, Amir, Bela, Bruno, Carla, Chen, Dario, Dina, Edda, Emil, Farah, Felix, Gita, Goran, Hana, Hugo, Ines, Ivan, "
    "Jana, Jonas, Kaja, Karim, Lena, Luca, Mara, Milo, Nadia, Nils, Olga, Omar, Petra, Pavel, Rosa, Rafi, Selma, Sven, "
    "Tara, Timo, Uma, Viktor"
)
LAST_NAMES = _split(
    "Abara, Bakker, Castro, Dragan, Endo, Fischer, Garcia, Hoxha, Ibsen, Jansen, Kovacs, Larsen, Moreau, Novak, Okoye, "
    "Pereira, Quinn, Rossi, Santos, Tanaka, Ueda, Varga, Weber, Xavier, Yilmaz, Zeman, Amari, Bianchi, Costa, Duarte, "
    "Eriksen, Ferrari, Gruber, Haddad, Iversen, Jovanov, Keller, Lindt, Mendes, Nakata"
)
