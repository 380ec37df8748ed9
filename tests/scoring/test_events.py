"""Events and arguments, on cases counted by hand."""

from dataclasses import replace

import pytest

from umie.records import Argument, Event, Record, Region

# characters:  0         1         2         3
#              0123456789012345678901234567890123456789
TEXT = "troops attack Rome as troops meet Rome"
TROOPS, ATTACK, ROME, TROOPS_AGAIN, MEET, ROME_AGAIN = (0, 6), (7, 13), (14, 18), (22, 28), (29, 33), (34, 38)
LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def events(*items, boxes=(), text=TEXT):
    """Build a record; an item is type, trigger, and arguments as role with a span or the index of a box."""
    built = []
    for name, trigger, *arguments in items:
        fillers = [
            Argument(role, regions=(filler,)) if isinstance(filler, int) else Argument(role, filler)
            for role, filler in arguments
        ]
        built.append(Event(name, trigger, tuple(fillers)))
    return Record(text, image="1.jpg", regions=tuple(map(Region, boxes)), events=tuple(built))


@pytest.mark.parametrize(
    ("predicted", "strict", "kind", "trigger"),
    [
        ([("attack", ATTACK), ("meet", MEET)], (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        ([], (0, 0, 2), (0, 0, 2), (0, 0, 2)),
        ([("attack", MEET)], (0, 1, 2), (1, 1, 2), (1, 1, 2)),
        ([("attack", None)], (0, 1, 2), (1, 1, 2), (0, 0, 2)),
        ([("attack", ATTACK)] * 2, (1, 1, 2), (1, 1, 2), (1, 1, 2)),
        ([("attack", ATTACK), ("attack", ROME)], (1, 2, 2), (1, 2, 2), (1, 2, 2)),
        ([("meet", ATTACK), ("attack", MEET)], (0, 2, 2), (2, 2, 2), (2, 2, 2)),
    ],
    ids=["all", "none", "other trigger", "no trigger", "twice", "two attacks", "swapped"],
)
def test_events(counts, predicted, strict, kind, trigger):
    record, gold = events(*predicted), events(("attack", ATTACK), ("meet", MEET))
    assert counts("med strict", record, gold) == counts("med string", record, gold) == strict
    assert counts("med type", record, gold) == kind
    assert counts("med trigger", record, gold) == trigger


def test_modalities_are_counted_separately(counts):
    gold = events(("attack", ATTACK), ("meet", None))
    predicted = events(("attack", None), ("meet", None))
    assert counts("med strict", predicted, gold) == (1, 2, 2)
    assert counts("med textual", predicted, gold) == (0, 0, 1)
    assert counts("med visual", predicted, gold) == (1, 2, 1)


def test_a_multimedia_event_matches_by_trigger_or_image(counts):
    gold = events(("attack", ATTACK), ("attack", TROOPS), ("meet", MEET))
    name = "med text or image"
    assert counts(name, events(("attack", None)), gold) == (1, 1, 3)
    assert counts(name, events(("attack", ATTACK), ("attack", None)), gold) == (2, 2, 3)
    assert counts(name, events(("attack", ATTACK), ("attack", None), ("meet", None)), gold) == (3, 3, 3)
    assert counts(name, events(("attack", ROME)), gold) == (0, 1, 3)  # a wrong trigger is not excused
    assert counts(name, events(("die", None)), gold) == (0, 1, 3)
    assert counts("med strict", events(("attack", None)), gold) == (0, 1, 3)


def test_textual_arguments_need_role_span_and_event(counts, tally):
    gold = events(("attack", ATTACK, ("Attacker", TROOPS), ("Place", ROME)))
    name = "meae textual"
    assert counts(name, gold, gold) == (2, 2, 2)  # an event type of one word, as any
    assert tally(name, gold, gold) == {"Attacker": (1, 1, 1), "Place": (1, 1, 1)}
    assert counts(name, events(("attack", ATTACK, ("Target", TROOPS))), gold) == (0, 1, 2)
    assert counts(name, events(("attack", ATTACK, ("Attacker", TROOPS_AGAIN))), gold) == (0, 1, 2)
    assert counts("meae string", events(("attack", ATTACK, ("Attacker", TROOPS_AGAIN))), gold) == (1, 1, 2)
    assert counts(name, events(("attack", ATTACK, *[("Place", ROME)] * 2)), gold) == (1, 1, 2)
    other_trigger, other_type = (events((*event, ("Place", ROME))) for event in (("attack", MEET), ("meet", ATTACK)))
    assert counts(name, other_trigger, gold) == (0, 1, 2)
    assert counts("meae textual by type", other_trigger, gold) == (1, 1, 2)
    assert counts("meae textual by type", other_type, gold) == (0, 1, 2)


def test_repeated_mentions_of_an_argument_must_each_be_predicted(counts):
    gold = events(("attack", ATTACK, ("Place", ROME), ("Place", ROME_AGAIN)))
    one = events(("attack", ATTACK, ("Place", ROME)))
    assert counts("meae textual", one, gold) == counts("meae string", one, gold) == (1, 1, 2)


def visual(*boxes, role="Target", event=("attack", ATTACK)):
    """Build a record whose event has all these boxes in one role."""
    return events((*event, *((role, place) for place in range(len(boxes)))), boxes=boxes)


@pytest.mark.parametrize(
    ("predicted", "gold", "instance", "union"),
    [
        ([LEFT, RIGHT], [RIGHT, LEFT], (2, 2, 2), (1, 1, 1)),  # the order of regions says nothing
        ([LEFT], [LEFT, RIGHT], (1, 1, 2), (0, 1, 1)),
        ([WHOLE], [LEFT, RIGHT], (0, 1, 2), (1, 1, 1)),
        ([LEFT, RIGHT], [WHOLE], (0, 2, 1), (1, 1, 1)),
        ([], [LEFT], (0, 0, 1), (0, 0, 1)),
        ([LEFT], [], (0, 1, 0), (0, 1, 0)),
        ([(0.0, 0.0, 0.5, 1.0)], [WHOLE], (1, 1, 1), (1, 1, 1)),  # IoU is exactly 0.5
        ([(0.0, 0.0, 0.49, 1.0)], [WHOLE], (0, 1, 1), (0, 1, 1)),
        ([LEFT, (0.0, 0.0, 0.39, 1.0)], [LEFT], (1, 2, 1), (1, 1, 1)),  # two boxes, one person
        ([LEFT, LEFT], [LEFT], (1, 1, 1), (1, 1, 1)),  # the same box twice is one
        ([(0.1, 0.0, 0.5, 1.0), LEFT], [LEFT, (0.05, 0.0, 0.45, 1.0)], (2, 2, 2), (1, 1, 1)),
        ([RIGHT], [LEFT], (0, 1, 1), (0, 1, 1)),
    ],
    ids=["swapped", "one of two", "one around", "two inside", "no box", "no gold", "half", "below half", "overlapping",
         "repeated", "both overlap", "elsewhere"],
)  # fmt: skip
def test_visual_arguments(counts, predicted, gold, instance, union):
    sides = visual(*predicted), visual(*gold)
    for suffix in ("", " by type"):
        assert counts(f"meae visual instance{suffix}", *sides) == instance
        assert counts(f"meae visual union{suffix}", *sides) == union
    assert counts("meae strict", *sides) == counts("meae by type", *sides) == instance


def test_a_greedy_matching_would_lose_one(counts):
    """The first box fits both gold boxes, the second only the first."""
    wide, near, far = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 0.3, 1.0), (0.2, 0.0, 0.5, 1.0)
    assert counts("meae visual instance", visual(wide, (0.0, 0.0, 0.25, 1.0)), visual(near, far)) == (2, 2, 2)


def test_each_side_uses_its_own_boxes(counts):
    """A prediction can have more regions, in another order."""
    gold = events(("attack", ATTACK, ("Target", 0)), boxes=[LEFT])
    predicted = events(("attack", ATTACK, ("Target", 2)), boxes=[RIGHT, WHOLE, LEFT])
    assert counts("meae visual instance", predicted, gold) == (1, 1, 1)
    assert counts("meae visual instance", events(("attack", ATTACK, ("Target", 0)), boxes=[RIGHT]), gold) == (0, 1, 1)


def test_visual_arguments_need_role_and_event(counts, tally):
    gold = visual(LEFT)
    for name in ("meae visual instance", "meae visual union"):
        assert counts(name, visual(LEFT, role="Place"), gold) == (0, 1, 1)
        assert tally(name, visual(LEFT, role="Place"), gold) == {"Place": (0, 1, 0), "Target": (0, 0, 1)}
        assert counts(name, visual(LEFT, event=("meet", ATTACK)), gold) == (0, 1, 1)
        assert counts(name, visual(LEFT, event=("attack", None)), gold) == (0, 1, 1)
        assert counts(f"{name} by type", visual(LEFT, event=("attack", None)), gold) == (1, 1, 1)


def test_boxes_of_two_events_do_not_mix(counts):
    gold = events(("attack", ATTACK, ("Target", 0)), ("attack", TROOPS, ("Target", 1)), boxes=[LEFT, RIGHT])
    swapped = events(("attack", ATTACK, ("Target", 1)), ("attack", TROOPS, ("Target", 0)), boxes=[LEFT, RIGHT])
    assert counts("meae visual instance", swapped, gold) == (0, 2, 2)
    assert counts("meae visual union", swapped, gold) == (0, 2, 2)
    assert counts("meae visual instance by type", swapped, gold) == (2, 2, 2)
    assert counts("meae visual union by type", swapped, gold) == (1, 1, 1)


def test_strict_adds_textual_and_visual_arguments(counts, tally):
    gold = events(("attack", ATTACK, ("Place", ROME), ("Place", 0), ("Target", 1)), boxes=[LEFT, RIGHT])
    predicted = events(("attack", ATTACK, ("Place", ROME), ("Place", 0), ("Target", 0)), boxes=[LEFT])
    assert counts("meae strict", predicted, gold) == (2, 3, 3)
    assert tally("meae strict", predicted, gold) == {"Place": (2, 2, 2), "Target": (0, 1, 1)}


def test_each_measure_uses_its_own_kind_of_box_if_a_role_has_both(counts):
    """M2E2 annotates boxes of single participants, and a box of all for `visual union`."""

    def labeled(*regions):
        numbers = [("Target", index) for index in range(len(regions))]
        record = events(("attack", None, *numbers), boxes=[box for box, _ in regions])
        return replace(record, regions=tuple(Region(*region) for region in regions))

    gold = labeled((LEFT, "instance"), (RIGHT, "instance"), (WHOLE, "union"))
    one, both, whole = labeled((LEFT, None)), labeled((LEFT, None), (RIGHT, None)), labeled((WHOLE, None))
    instance, union = "meae visual instance", "meae visual union"
    assert counts(instance, both, gold) == (2, 2, 2)
    assert counts(instance, one, gold) == (1, 1, 2)
    assert counts(instance, whole, gold) == (0, 1, 2)
    assert counts(union, whole, gold) == counts(union, both, gold) == counts(union, gold, gold) == (1, 1, 1)
    assert counts(union, one, gold) == (0, 1, 1)
    crowd = labeled((WHOLE, "union"))
    assert counts(instance, whole, crowd) == counts(union, whole, crowd) == (1, 1, 1)
