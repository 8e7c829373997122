"""The scheduler's order in simulated time, against the least time that any order could take."""

from __future__ import annotations

import random
import statistics

import pytest

from tests.simulation import UNEQUAL, Change, Fault, Machine, Simulation, drawn, lognormal

#: Requests of size 1 a second of all machines together.
CAPACITY = sum(machine.slots / machine.seconds for machine in UNEQUAL)
FAULTS: tuple[Fault, ...] = ("down", "hung", "broken", "cut", "slow")


def ratios(count: int, seeds: int, *changes: Change, machines: tuple[Machine, ...] = UNEQUAL) -> list[float]:
    """Makespan over its own bound for each seed; fails when a request is lost."""
    found = []
    for seed in range(seeds):
        sizes = lognormal(count, random.Random(seed))
        simulation = Simulation(machines, sizes, changes, seed=seed, check_every=7)
        makespan = simulation.run()
        assert set(simulation.outcomes.values()) == {"whole"}
        found.append(makespan / simulation.bound())
    return found


@pytest.mark.parametrize(("count", "seeds", "most"), [(200, 10, 1.10), (2000, 2, 1.05)])
def test_the_makespan_on_unequal_hosts_is_near_the_bound(count: int, seeds: int, most: float) -> None:
    assert max(ratios(count, seeds)) <= most


@pytest.mark.parametrize("machine", [machine.name for machine in UNEQUAL])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [0.0, 0.3])
def test_a_host_that_fails_loses_nothing_and_costs_little(machine: str, fault: Fault, at: float) -> None:
    """From the start, or in the middle of what 200 requests take."""
    assert max(ratios(200, 5, Change(at * 200 / CAPACITY, machine, fault))) <= 1.15


def test_hosts_drawn_at_random() -> None:
    rng = random.Random(7)
    several = [ratios(400, 1, machines=drawn(rng))[0] for _ in range(12)]
    assert statistics.mean(several) <= 1.05
    assert max(several) <= 1.15


def test_two_runs_that_start_together_share_the_hosts_alike() -> None:
    """One with many short requests, the other with few long ones, the same work in all."""
    rng = random.Random(3)
    short, long = [0.5] * 480, [2.0] * 120
    pieces = [*zip(["short"] * 480, short, strict=True), *zip(["long"] * 120, long, strict=True)]
    rng.shuffle(pieces)
    simulation = Simulation(UNEQUAL, [size for _, size in pieces], runs=[run for run, _ in pieces], check_every=20)
    simulation.run()
    ends = {
        run: max(simulation.finished[n] for n, (of, _) in enumerate(pieces) if of == run) for run in ("short", "long")
    }
    assert max(ends.values()) <= 1.3 * min(ends.values()), ends


def test_a_run_that_comes_later_does_not_wait_for_the_whole_of_the_first() -> None:
    sizes = [1.0] * 440
    runs = ["first"] * 400 + ["later"] * 40
    arrivals = [0.0] * 400 + [2.0] * 40
    simulation = Simulation(UNEQUAL, sizes, runs=runs, arrivals=arrivals, check_every=20)
    makespan = simulation.run()
    served = max(simulation.finished[number] for number in range(400, 440)) - 2.0
    alone = 40 / CAPACITY
    assert served <= 1.3 * (2 * alone + max(machine.seconds for machine in UNEQUAL))
    assert served < makespan / 3


def churn(machines: list[Machine], until: float, rng: random.Random) -> list[Change]:
    """Every machine is struck now and then, and mended after a while."""
    changes = []
    for machine in machines:
        clock = rng.expovariate(3 / until)
        while clock < until:
            fault = rng.choice(FAULTS)
            mended = clock + rng.uniform(0.02, 0.1) * until
            changes += [Change(clock, machine.name, fault), Change(mended, machine.name, "ok")]
            clock = mended + rng.expovariate(3 / until)
    return sorted(changes, key=lambda change: change.time)


@pytest.mark.parametrize(
    ("hosts", "count"),
    [(20, 4_000), pytest.param(100, 100_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])],
)
def test_many_hosts_that_come_and_go(hosts: int, count: int) -> None:
    rng = random.Random(11)
    machines = [Machine(f"h{n}", rng.choice((1, 2, 4, 8)), rng.uniform(0.2, 3.0)) for n in range(hosts)]
    ideal = count / sum(machine.slots / machine.seconds for machine in machines)
    sizes = lognormal(count, rng)
    calm = Simulation(machines, sizes, check_every=997)
    calm.run()
    stormy = Simulation(machines, sizes, churn(machines, ideal, rng), check_every=997)
    makespan = stormy.run()
    per_decision = 1e6 * stormy.decided / stormy.decisions
    print(
        f"{hosts} hosts, {count} requests: {calm.now / calm.bound():.3f} × the bound calm, "
        f"{makespan / stormy.bound():.3f} × under churn; {1e6 * calm.decided / calm.decisions:.0f} and "
        f"{per_decision:.0f} µs a decision, {stormy.scheduler.statistics().copies} copies"
    )
    assert set(calm.outcomes.values()) == set(stormy.outcomes.values()) == {"whole"}
    assert calm.now <= 1.05 * calm.bound()
    assert makespan <= 1.25 * stormy.bound()
