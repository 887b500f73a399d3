"""Speed: what is left is told by what goes on, not by what was there."""

import pytest

from tasks.core.speed import RECENT, Speed


def test_what_was_there_at_once_does_not_count_as_speed():
    speed = Speed(100.0)
    speed.note(100.2, 5_000)
    for second in range(1, 11):
        speed.note(100.0 + second, 5_000 + 20 * second)
    assert speed.rate(110.0, 5_200) == pytest.approx(20, rel=0.05)


def test_a_jump_is_forgotten_after_a_while():
    speed = Speed(0.0)
    speed.note(5.0, 400_000)  # a cache's answer that took its time
    done = 400_000
    for second in range(6, 6 + int(2 * RECENT)):
        done += 50
        speed.note(float(second), done)
    assert speed.rate(5.0 + 2 * RECENT, done) == pytest.approx(50, rel=0.02)


def test_items_that_take_longer_than_the_window_still_have_a_rate():
    speed = Speed(0.0)
    for number in range(1, 6):
        speed.note(number * 3 * RECENT, number)
    assert speed.rate(15 * RECENT, 5) == pytest.approx(1 / (3 * RECENT))


def test_work_that_stands_still_slows_down():
    speed = Speed(0.0)
    for second in range(1, 11):
        speed.note(float(second), second)
    assert speed.rate(20.0, 10) < speed.rate(10.0, 10)


def test_nothing_done_is_no_speed():
    assert Speed(0.0).rate(5.0, 0) == 0
