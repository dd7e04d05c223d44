"""Which texts of the base model become deliberation thoughts: a table in the styles of several models."""

import pytest

from sandcli.method.acceptance import conclusion, rejection_reason, up_to_conclusion

CANDIDATES = ["take lamp", "look", "go to hall"]
"""In the order of the opening; the first is the expert's."""

GOOD = [
    # short, as small models write
    '"look" shows little, "go to hall" leaves the lamp behind, "take lamp" brings it. So I will take lamp.',
    'With "look" I see nothing new. With "go to hall" I leave. With "take lamp" I have it. So I will "take lamp".',
    "To look is free but shows no more; to go to hall is too early; take lamp is next. So I will Take  Lamp.",
    "I could look, or go to hall, but both wait until I take lamp, and I must take lamp first. So I will take lamp!",
    "First look would repeat what I see, go to hall comes later, take lamp is due. So I will take lamp now.",
    # as guided deliberations are: the same words begin every sentence
    'With "look" I would advance the task, because it would show the room. With "go to hall" I would advance the task, '
    'because it would lead home. With "take lamp" I would advance the task, because it would bring the lamp. '
    "So I will take lamp.",
    'With "take lamp" I would advance the task, because it would bring the lamp. With "look" I would hinder the task, '
    'because it would waste a step. With "go to hall" I would hinder the task as well. So I will take lamp.',
    # paragraphs and lists
    "The task asks for the lamp.\n\nTaking it is possible: take lamp.\n\nTo look adds nothing.\n\n"
    "To go to hall without it would cost a second trip.\n\nSo I will take lamp.",
    "1. take lamp: the lamp is in reach, so this makes progress.\n2. look: the room is known, this adds nothing.\n"
    "3. go to hall: the lamp would stay behind.\n\nComparing them, the first is best. So I will take lamp.",
    "- **take lamp** - gets the object that the task names.\n- **look** - shows the room again.\n"
    "- **go to hall** - leaves the lamp behind.\n\n**Decision:** So I will **take lamp**.",
    "Option 1 gets the lamp into my hands. Option 2 would only repeat the description. Option 3 is for later, "
    "once I carry the lamp. Therefore, I will take lamp.",
    "Consider (1): it brings the lamp. Consider (2): it brings words. Consider (3): I go away. So, I will take lamp.",
    "Option (1), the lamp, is what the task needs. Option (2) is a pause. Option (3) is early. Thus I will take lamp.",
    # other words for the conclusion
    "look is idle, go to hall is early, and take lamp is right on time. Hence I will take lamp.",
    "look is idle, go to hall is early, and take lamp is right on time. Therefore I'll take lamp, because it is near.",
    "look is idle, go to hall is early, and take lamp is right on time. So I choose to take lamp.",
    "look is idle, go to hall is early, and take lamp is due by now. Consequently, I will take lamp in order to see.",
    "look is idle, go to hall is early, and take lamp is right on time. So I will `take lamp`",
    # more after the conclusion is left out, whatever it says
    "look is idle, go to hall is early, and take lamp is due. So I will take lamp. I could look, as the expert says.",
    "look is idle, go to hall is early, and take lamp is right on time. So I will take lamp.\n\nAfter that, I go on.",
    # the present state and expectations may be mentioned
    "I have not found the lamp before now. To look would delay, to go to hall would fail the task, take lamp would "
    "complete it. So I will take lamp.",
    "look would have no effect; go to hall would end the episode too early; take lamp would advance the task. "
    "So I will take lamp.",
    "The task was described clearly: bring the lamp. look does not help, go to hall is too soon, take lamp does. "
    "So I will take lamp.",
]

NOT_MENTIONED = "leaves out a candidate"
KNOWS = "mentions what the agent cannot know"
WRONG = "does not end in the expert's action"

BAD = [
    ("", "comes to no conclusion"),
    ("I could look, go to hall, or take lamp.", "comes to no conclusion"),
    ("Fine.\nAction: look\nSo I will take lamp.", "contains an action line"),
    ("Fine. Action: look. So I will take lamp.", "contains an action line"),
    # empty analyses
    ("So I will take lamp.", NOT_MENTIONED),
    ("It is best so. So I will take lamp.", NOT_MENTIONED),
    ("To look is free, but the lamp is here. So I will take lamp.", NOT_MENTIONED),
    ('"look" shows little. So I will "take lamp".', NOT_MENTIONED),
    ('"look" shows little, and "go to hall" leaves the lamp behind. So I will take lamp.', NOT_MENTIONED),
    (
        "Option (1), take lamp, is what the task asks for. Option (2) shows little, and option (3) leads away. "
        "Option (4), take lamp, would be needed later. So I will take lamp.",
        "weighs an option that is not listed",
    ),
    (
        "To take lamp is what the task asks for, to look shows little, to go to hall leads away, and option 4 is late. "
        "So I will take lamp.",
        "weighs an option that is not listed",
    ),
    (
        'With "take lamp" I would hinder the task, because it is heavy. With "look" I would advance the task, because '
        'it would show the room. With "go to hall" I would not affect the task. So I will take lamp.',
        "speaks against the action it chooses",
    ),
    ("(1) take lamp; (2) look; (3) go to hall. So I will take lamp.", "does not weigh the candidates"),
    ("Options: take lamp, look, go to hall. So I will take lamp.", "does not weigh the candidates"),
    ("1. take lamp\n2. look\n3. go to hall\n\nSo I will take lamp.", "does not weigh the candidates"),
    # what only rollouts can show
    ("look and go to hall: take lamp completed the task when I tried it, and the others failed (score 0.10). "
     "So I will take lamp.", KNOWS),
    ("look, go to hall and take lamp are open, and I was told to end with it. So I will take lamp.", KNOWS),
    ("look and go to hall are worse than take lamp, as the expert would do it. So I will take lamp.", KNOWS),
    ("look and go to hall are worse than take lamp: its rollouts went well. So I will take lamp.", KNOWS),
    ("look and go to hall are worse than take lamp: the reward is high. So I will take lamp.", KNOWS),
    ("look and go to hall are worse than take lamp, by the critique. So I will take lamp.", KNOWS),
    ("In my simulation look and go to hall were useless, unlike take lamp. So I will take lamp.", KNOWS),
    ("look scored 0.2 and go to hall 0.1, and take lamp more than that. So I will take lamp.", KNOWS),
    ("I tried to look and to go to hall; now it remains to take lamp. So I will take lamp.", KNOWS),
    ("look did not affect the task, go to hall is early, take lamp is right. So I will take lamp.", KNOWS),
    ("look is idle, go to hall hindered the task, take lamp is right here. So I will take lamp.", KNOWS),
    ("look is idle, go to hall is early, take lamp advanced the task well. So I will take lamp.", KNOWS),
    ('look is idle, and "go to hall" failed, and take lamp is left over. So I will take lamp.', KNOWS),
    ("look is idle, go to hall is early, take lamp worked; it led to the goal. So I will take lamp.", KNOWS),
    ("look and go to hall turned out badly; that failed, so take lamp it is. So I will take lamp.", KNOWS),
    ("look is idle, go to hall is early; with take lamp the task was completed. So I will take lamp.", KNOWS),
    ("look is idle, go to hall is early, I am instructed to take lamp here. So I will take lamp.", KNOWS),
    ("With hindsight look and go to hall are a waste beside take lamp. So I will take lamp.", KNOWS),
    ('With "look" I would see it. With "go to hall" I leave. With "take lamp" I advance, because it let me have it. '
     "So I will take lamp.", KNOWS),
    ("look is idle, go to hall is early, take lamp is good because that had allowed me to win. So I will take lamp.",
     KNOWS),
    # other decisions
    ("To look is best; take lamp and go to hall can wait for now. So I will look.", WRONG),
    ("look or go to hall or take lamp, all the same to me today. So I will wait.", WRONG),
    ("To take lamp is best, not to look or go to hall. So I will not take lamp.", WRONG),
    ("To take lamp is best, not to look or go to hall. So I will look first and then take lamp.", WRONG),
    ("To take lamp is best, not to look or go to hall. So I will take lamp in the box.", WRONG),
    ("It is best so. It is best so. I look, go to hall, take lamp. So I will take lamp.", "repeats itself"),
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_deliberation_that_weighs_every_candidate_is_accepted(text: str) -> None:
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) is None
    assert up_to_conclusion(text, CANDIDATES).endswith((".", "!"))
    assert rejection_reason(up_to_conclusion(text, CANDIDATES), "stop", "take lamp", CANDIDATES) is None


@pytest.mark.parametrize(("text", "why"), BAD)
def test_deliberation_is_rejected_for_a_stated_reason(text: str, why: str) -> None:
    assert rejection_reason(text, "stop", "take lamp", CANDIDATES) == why


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A is slow. So I will go to hall.", "A is slow. So I will go to hall."),
        ("A. So I will look.\nSo I will go to hall! And then?", "A. So I will look."),
        ("A is slow.\n\nB  is not. So I will go to hall", "A is slow.\nB is not. So I will go to hall."),
        (
            "A needs a key. So I will need a key. So I will look. Bye.",
            "A needs a key. So I will need a key. So I will look.",
        ),
        ("A is slow.", ""),
        ("", ""),
    ],
)
def test_deliberation_ends_with_the_first_decision(text: str, kept: str) -> None:
    assert up_to_conclusion(text, CANDIDATES) == kept


def test_conclusion_that_names_no_candidate_decides_nothing() -> None:
    found = conclusion("Hm. So I will wait.", CANDIDATES)
    assert found is not None and found.decision is None


def test_token_limit_matters_only_before_the_conclusion() -> None:
    weighed = "look is idle, go to hall is early, and take lamp is right on time."
    for text, why in [
        (weighed, "cut by the token limit"),
        (f"{weighed} So I will take lamp", "cut by the token limit"),
        (f"{weighed} So I will take lamp. And", None),
    ]:
        assert rejection_reason(text, "length", "take lamp", CANDIDATES) == why


def test_action_inside_a_longer_word_is_not_a_mention() -> None:
    text = "I could wait for the rain, overlooking everything here in the room. So I will wait."
    assert rejection_reason(text, "stop", "wait", ["wait", "look"]) == "leaves out a candidate"


def test_longer_action_is_not_a_mention_of_the_shorter_one() -> None:
    text = "To open door to hall would lead away from the work that is left here. So I will open door to hall."
    found = rejection_reason(text, "stop", "open door to hall", ["open door to hall", "open door"])
    assert found == "leaves out a candidate"


def test_words_of_an_action_are_not_held_against_the_text() -> None:
    text = "To read scores is what the task asks, and to wait would only cost time. So I will read scores."
    assert rejection_reason(text, "stop", "read scores", ["read scores", "wait"]) is None


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_check_of_a_long_text_takes_linear_time(length: int) -> None:
    """A pattern that backtracks would not finish."""
    for part in ("so I will", "(1) look ", "it ", "   ", "a.b?c!"):
        assert rejection_reason(part * (length // len(part)), "length", "take lamp", CANDIDATES) is not None
