"""Which engine runs: the one that finishes first, its start-up counted, and never a wrong one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import choice
from tasks.core.choice import (
    EXPECTED,
    FEW,
    KEEP_WITHIN,
    MOST_ERROR,
    Measured,
    Memory,
    Step,
    choose,
    next_step,
    relative_error,
)
from tasks.core.engines import CPU_ENGINES, Engine, Unavailable
from tasks.core.errors import RequestError

QUICK = {"channels_last": Measured(0, 30), "eager": Measured(0, 15)}
ALL = {**QUICK, "openvino": Measured(16, 92), "compiled": Measured(22, 47)}

measurements = st.fixed_dictionaries(
    {
        name: st.builds(Measured, st.floats(0, 100), st.floats(0, 1000).map(lambda rate: round(rate, 1)))
        for name in CPU_ENGINES
    }
)


def probe(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 4, 4)).astype(np.uint8)


def rows(x: np.ndarray) -> list[np.ndarray]:
    return [x.astype(np.float32).reshape(len(x), -1) + 1]


class Workshop:
    """Builds engines of given exactness and cost, and counts."""

    def __init__(self, off: dict[str, float] | None = None, lacking: tuple[str, ...] = ()) -> None:
        self.off, self.lacking, self.built = off or {}, lacking, list[str]()

    def __call__(self, name: str) -> Engine:
        self.built.append(name)
        if name in self.lacking:
            raise Unavailable("not installed")
        factor = 1 + self.off.get(name, 0.0)
        return Engine(name, 4, lambda x: [block * np.float32(factor) for block in rows(x)])


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "engines" / "measured.json")


# Deciding


@pytest.mark.parametrize(
    ("samples", "engine"),
    [(10, "channels_last"), (400, "channels_last"), (800, "openvino"), (10**6, "openvino")],
)
def test_start_up_counts_against_the_samples_to_do(samples, engine):
    assert next_step(ALL, CPU_ENGINES, samples) == Step(engine, is_trial=False)


@given(measurements, st.integers(1, 10**6))
def test_among_measured_engines_none_would_finish_earlier(known, samples):
    step = next_step(known, CPU_ENGINES, samples)
    assert not step.is_trial
    assert known[step.engine].seconds(samples) == min(each.seconds(samples) for each in known.values())


def test_the_safe_engine_is_tried_first():
    assert next_step({}, CPU_ENGINES, FEW + 1) == Step("channels_last", is_trial=True)


def test_a_few_samples_run_in_plain_eager_with_nothing_measured(memory: Memory):
    assert next_step({}, CPU_ENGINES, FEW) == Step("eager", is_trial=False)
    workshop = Workshop()
    assert choose(workshop, probe, CPU_ENGINES, FEW, memory).name == "eager"
    assert workshop.built == ["eager"]
    assert memory.recall() == {}


def test_an_engine_is_tried_where_it_is_expected_to_finish_first():
    startup, times = EXPECTED["openvino"]
    even = QUICK["channels_last"].rate * startup / (1 - 1 / times)  # samples for which it comes out the same
    assert next_step(QUICK, CPU_ENGINES, int(0.9 * even)) == Step("channels_last", is_trial=False)
    assert next_step(QUICK, CPU_ENGINES, int(1.1 * even)) == Step("openvino", is_trial=True)


def test_an_engine_that_disappoints_makes_room_for_the_next():
    known = {**QUICK, "openvino": Measured(10, 25)}
    assert next_step(known, CPU_ENGINES, 5_000) == Step("compiled", is_trial=True)


def test_a_slow_start_is_not_tried_once_a_fast_engine_leaves_little_to_gain():
    known = {**QUICK, "openvino": Measured(5, 200)}
    assert next_step(known, CPU_ENGINES, 10_000) == Step("openvino", is_trial=False)
    assert next_step(known, CPU_ENGINES, 1_000_000) == Step("compiled", is_trial=True)


def test_rows_of_one_set_stay_with_one_engine_while_that_costs_less_than_a_minute():
    assert next_step(ALL, CPU_ENGINES, 10, begun="openvino").engine == "openvino"
    assert next_step(ALL, CPU_ENGINES, 1000, begun="channels_last").engine == "channels_last"
    assert next_step(ALL, CPU_ENGINES, 100_000, begun="channels_last").engine == "openvino"


@given(measurements, st.integers(1, 10**6), st.sampled_from(CPU_ENGINES))
def test_keeping_an_engine_never_costs_more_than_agreed(known, samples, begun):
    taken = known[next_step(known, CPU_ENGINES, samples, begun).engine].seconds(samples)
    best = min(each.seconds(samples) for each in known.values())
    assert taken == best or taken <= best + KEEP_WITHIN


def test_the_engine_that_made_the_first_rows_is_kept_though_it_was_never_measured():
    known = {"channels_last": Measured(0, 30)}
    assert next_step(known, CPU_ENGINES, 200, begun="eager") == Step("eager", is_trial=True)
    assert next_step(known, CPU_ENGINES, 200, begun="openvino") == Step("openvino", is_trial=True)
    assert (
        next_step({**known, "eager": Measured(0, 15)}, CPU_ENGINES, 10**5, begun="eager").engine == "openvino"
    )


def test_an_engine_of_another_machine_is_not_kept():
    assert next_step(QUICK, CPU_ENGINES, 10, begun="cuda").engine == "channels_last"


# Acting


def test_a_second_run_tries_nothing(memory: Memory):
    first = Workshop()
    choose(first, probe, CPU_ENGINES, 10**9, memory)
    assert set(memory.recall()) == set(first.built)  # measured speeds decide which are worth a trial
    assert len(first.built) > 1
    again = Workshop()
    engine = choose(again, probe, CPU_ENGINES, 10**9, memory)
    assert again.built == [engine.name]


def test_an_engine_that_differs_from_eager_is_not_used(memory: Memory, monkeypatch):
    timed = {"eager": 9.0, "channels_last": 8.0, "openvino": 1.0, "compiled": 2.0}
    workshop = Workshop(off={"openvino": 2 * MOST_ERROR, "compiled": MOST_ERROR / 2})
    engine = choose(in_time(workshop, timed, monkeypatch), probe, CPU_ENGINES, 10**9, memory)
    assert engine.name == "compiled"
    assert "off by 0.002" in memory.recall()["openvino"].problem
    assert memory.recall()["compiled"].error == pytest.approx(MOST_ERROR / 2, rel=0.01)


def in_time(
    workshop: Workshop, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Engine]:
    """Let a clock tell how long each engine's pass takes."""
    clock = [0.0]
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    def build(name: str) -> Engine:
        engine = workshop(name)
        inner = engine.forward

        def forward(x: np.ndarray) -> list[np.ndarray]:
            clock[0] += seconds[name]
            return inner(x)

        return Engine(name, engine.batch, forward)

    return build


def test_the_fastest_is_taken(memory: Memory, monkeypatch):
    for fastest in CPU_ENGINES:
        timed = {name: 1.0 if name == fastest else 2.0 for name in CPU_ENGINES}
        memory.path.unlink(missing_ok=True)
        build = in_time(Workshop(), timed, monkeypatch)
        assert choose(build, probe, CPU_ENGINES, 10**9, memory).name == fastest


def test_what_cannot_be_had_is_passed_over_until_it_can(memory: Memory):
    engine = choose(Workshop(lacking=("openvino", "compiled")), probe, CPU_ENGINES, 10**9, memory)
    assert engine.name in ("eager", "channels_last")
    assert set(memory.recall()) == {"eager", "channels_last"}
    again = Workshop()
    choose(again, probe, CPU_ENGINES, 10**9, memory)
    assert "openvino" in again.built


def test_what_our_own_code_has_to_say_goes_through(memory: Memory):
    def build(name: str) -> Engine:
        raise RequestError("pooling 'cls' needs tokens")

    with pytest.raises(RequestError, match="tokens"):
        choose(build, probe, CPU_ENGINES, 10**9, memory)


def test_an_engine_whose_making_fails_is_passed_over(memory: Memory):
    workshop = Workshop()

    def build(name: str) -> Engine:
        if name == "openvino":
            raise ValueError("an operation that it does not know")
        return workshop(name)

    assert choose(build, probe, CPU_ENGINES, 10**9, memory).name != "openvino"


@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_engine_that_gives_nan_is_not_used(memory: Memory, monkeypatch):
    timed = {"eager": 9.0, "channels_last": 8.0, "openvino": 1.0, "compiled": 8.0}
    engine = choose(
        in_time(Workshop(off={"openvino": np.nan}), timed, monkeypatch), probe, CPU_ENGINES, 10**9, memory
    )
    assert engine.name != "openvino"


def test_an_engine_that_fails_in_its_first_pass_is_passed_over(memory: Memory):
    workshop = Workshop()

    def build(name: str) -> Engine:
        def fail(x: np.ndarray) -> list[np.ndarray]:
            raise RuntimeError("no such\nkernel")

        return Engine(name, 4, fail) if name == "openvino" else workshop(name)

    assert choose(build, probe, CPU_ENGINES, 10**9, memory).name != "openvino"
    assert "openvino" not in memory.recall()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"eager": 1}', '{"eager": {"speed": 3}}'])
def test_a_damaged_memory_is_begun_anew(memory: Memory, text):
    memory.path.parent.mkdir()
    memory.path.write_text(text)
    assert choose(Workshop(), probe, CPU_ENGINES, 10**3, memory).name in CPU_ENGINES
    assert "channels_last" in memory.recall()


def test_a_network_that_gives_nan_still_gets_an_engine(memory: Memory):
    build = lambda name: Engine(name, 4, lambda x: [np.full((len(x), 2), np.nan, np.float32)])  # noqa: E731
    assert choose(build, probe, CPU_ENGINES, 10**3, memory).name in CPU_ENGINES


# Relative error


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e-1))
def test_the_error_is_the_worst_rows_share(seed, share):
    rng = np.random.default_rng(seed)
    true = [rng.normal(size=(5, 7)), rng.normal(size=(5, 2, 3))]
    found = [block.copy() for block in true]
    found[1][3] *= 1 + share
    assert relative_error(found, true) == pytest.approx(share, rel=1e-6)


def test_rows_of_zeros_agree_with_themselves():
    assert relative_error([np.zeros((2, 3))], [np.zeros((2, 3))]) == 0
