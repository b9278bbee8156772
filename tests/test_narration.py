"""Captions in other words: what they say is what they are said to say."""

import numpy as np
import pytest

from iy import lexicon, narration
from iy.narration import narrate
from iy.phrases import FILLER, HELD, SECOND

ROW = {name: list(values)[1] for name, values in lexicon.LEXICON.items()}


def captions(style, count=400, word=""):
    return [narrate(ROW, np.random.default_rng(seed), style, word) for seed in range(count)]


def test_every_value_of_the_shot_has_another_word_and_one_that_is_held_out():
    for lists in (SECOND, HELD):
        for name, values in lists.items():
            assert list(values) == list(lexicon.LEXICON[name]) and all(values.values())
    assert {"expression", "pose", "light", "backdrop", "garment"} <= set(HELD)


def test_held_out_phrases_are_in_no_other_list():
    learnt = {
        p for lists in (lexicon.LEXICON, SECOND) for values in lists.values() for ps in values.values() for p in ps
    }
    held = [p for values in HELD.values() for ps in values.values() for p in ps]
    assert len(held) == len(set(held))
    for phrase in held:
        assert not any(phrase == other or phrase in other for other in learnt), phrase


def test_a_captioner_leaves_out_two_of_three_and_errs_now_and_then():
    made = captions(narration.CAPTIONER, 2000)
    for name in narration.FACE:
        named = [one.said[name] for one in made if name in one.said]
        assert 0.28 < len(named) / len(made) < 0.39
        assert 0.02 < np.mean([value != ROW[name] for value in named]) < 0.09


def test_an_exact_caption_says_the_shot_as_it_is():
    assert all(one.said == ROW for one in captions(narration.EXACT))


def test_a_long_caption_names_the_face_beyond_sixty_words():
    for one in captions(narration.LONG):
        words = one.text.split()
        assert 55 <= len(words) <= narration.LONG_WORDS[1]
        tail = one.text.rsplit(". ", 1)[1].lower()
        options = [p for lists in narration.ALL for p in lists["expression"][ROW["expression"]]]
        assert any(phrase.lower() in tail for phrase in options)
        assert set(one.late) == {name for name in narration.FACE if name in one.said}


def test_filler_says_nothing_that_the_lexicon_knows():
    assert not any(lexicon.find(text) for text in FILLER)


@pytest.mark.parametrize("word, shown", [("LOVE", '"LOVE"'), ("", None), (None, "letter")])
def test_the_word_on_the_clothes_is_quoted_left_out_or_only_mentioned(word, shown):
    texts = [one.text for one in captions(narration.EXACT, 200, word)]
    if shown is None:
        assert not any('"' in text for text in texts)
    elif word:
        assert all(shown in text for text in texts)
    else:
        assert not any('"' in text for text in texts) and any("letter" in text for text in texts)


def test_typos_touch_inner_letters_only_and_never_a_quoted_word():
    for one in captions(narration.SLOPPY, 200, "SMILE"):
        assert '"SMILE"' in one.text
    text = narration.misspelt("portrait of somebody smiling gently", np.random.default_rng(0), 1.0)
    pairs = zip(text.split(), "portrait of somebody smiling gently".split(), strict=True)
    assert text != "portrait of somebody smiling gently"
    assert all(a[0] == b[0] and len(b) - len(a) in (0, 1) for a, b in pairs)
