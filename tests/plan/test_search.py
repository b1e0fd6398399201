from dataclasses import replace

import pytest

from edgekit.compress.quantize import Quantize
from edgekit.cost import Cost, Figure, judge
from edgekit.errors import BadInput, VerificationFailed
from edgekit.plan.candidates import Candidate
from edgekit.plan.recipe import Recipe
from edgekit.plan.search import search, what_to_relax
from edgekit.result import Tried


def measured(value):
    return Figure(value=value, how="measured", source="a test")


def predicted(low, value, high):
    return Figure(value=value, low=low, high=high, how="predicted", source="a test")


def limit(value):
    return Figure(value=value, how="limit", source="a test")


def named(name, mends=None):
    steps = () if name == "float32" else (Quantize(samples=len(name)),)
    return Candidate(name=name, recipe=Recipe(steps=steps), mends=mends)


def run(costs, budget, *, foreseen=None, speedups=None, refused=None, mends=None):
    """A search over candidates whose costs are given; `built` names those that were realised."""
    built = []

    def realise(candidate):
        if refused and candidate.name in refused:
            raise refused[candidate.name]
        built.append(candidate.name)
        return Tried(
            name=candidate.name,
            recipe=candidate.recipe.data(),
            cost=costs[candidate.name],
            speedup_here=(speedups or {}).get(candidate.name),
        )

    found = search(
        [named(name, (mends or {}).get(name)) for name in costs],
        budget,
        foresee=lambda candidate: (foreseen or {}).get(candidate.name, Cost()),
        realise=realise,
    )
    return found, built


SMALL = Cost(size_mb=limit(2.0))


def test_the_first_that_fits_is_shipped_and_the_rest_is_not_built():
    costs = {"float32": Cost(size_mb=measured(4)), "int8": Cost(size_mb=measured(1)), "pruned": Cost()}
    found, built = run(costs, SMALL)
    assert built == ["float32", "int8"]
    assert found.tried[found.shipped].name == "int8"
    assert found.tried[0].outcome == "NOT MET"
    assert found.tried[1].reason == "the mildest recipe inside the budget"


def test_a_limit_inside_the_interval_of_a_prediction_lets_the_search_go_on():
    costs = {
        "float32": Cost(latency_p90_ms=predicted(30, 45, 90)),
        "int8": Cost(latency_p90_ms=predicted(10, 20, 40)),
    }
    found, _ = run(costs, Cost(latency_p90_ms=limit(50)))
    assert [tried.outcome for tried in found.tried] == ["UNPROVEN", "PREDICTED"]
    assert found.shipped == 1


def test_a_candidate_whose_best_case_misses_the_latency_is_not_built():
    costs = {name: Cost(latency_p90_ms=predicted(60, 80, 90)) for name in ("float32", "int8", "pruned")}
    costs["pruned"] = Cost(latency_p90_ms=predicted(5, 10, 20))
    found, built = run(costs, Cost(latency_p90_ms=limit(50)), foreseen=costs)
    assert built == ["float32", "pruned"]
    assert not found.tried[1].realised
    assert "not built" in found.tried[1].reason
    assert found.shipped == 2


def test_when_every_compressed_one_is_hopeless_the_fastest_is_built_and_the_nearest_reported():
    costs = {
        name: Cost(latency_p50_ms=predicted(least, least + 1, least + 2))
        for name, least in (("float32", 100), ("int8", 60), ("pruned", 30))
    }
    found, built = run(costs, Cost(latency_p50_ms=limit(10)), foreseen=costs)
    assert built == ["float32", "pruned"]
    assert found.tried[found.shipped].name == "pruned"
    assert found.tried[found.shipped].outcome == "NOT MET"


def test_int8_that_is_slower_is_not_shipped_though_it_fits():
    budget = Cost(latency_p50_ms=limit(10))
    costs = {"float32": Cost(latency_p50_ms=measured(12)), "int8": Cost(latency_p50_ms=measured(9))}
    found, _ = run(costs, budget, speedups={"int8": 0.5})
    assert found.shipped != 1
    assert "2.00 times slower than the float network" in found.tried[1].reason


def test_int8_that_is_slower_is_shipped_where_only_its_size_helps():
    costs = {"float32": Cost(size_mb=measured(4)), "int8": Cost(size_mb=measured(1))}
    found, _ = run(costs, SMALL, speedups={"int8": 0.9})
    assert found.shipped == 1


@pytest.mark.parametrize("error", [BadInput("no route works"), VerificationFailed("diverges")])
def test_a_candidate_that_cannot_be_built_is_reported_and_the_search_goes_on(error):
    costs = {"float32": Cost(size_mb=measured(4)), "int8": Cost(), "pruned": Cost(size_mb=measured(1))}
    found, _ = run(costs, SMALL, refused={"int8": error})
    assert found.shipped == 2
    assert found.tried[1].reason == f"cannot be built: {error}"


def test_when_the_first_candidate_cannot_be_built_nothing_can():
    with pytest.raises(VerificationFailed):
        run({"float32": Cost()}, SMALL, refused={"float32": VerificationFailed("diverges")})


def test_among_those_that_miss_the_one_whose_worst_excess_is_smallest_is_nearest():
    budget = Cost(size_mb=limit(1.0), drop=limit(0.01))
    costs = {
        "float32": Cost(size_mb=measured(8), drop=measured(0.0)),
        "int8": Cost(size_mb=measured(1.3), drop=measured(0.012)),
        "pruned": Cost(size_mb=measured(1.2), drop=measured(0.3)),
    }
    found, _ = run(costs, budget)
    assert found.tried[found.shipped].name == "int8"
    lines = what_to_relax(found.tried[found.shipped].verdicts)
    assert "met at a limit of 1.3 MB" in lines[0]
    assert "met at a limit of 1.20 %" in lines[1]


def test_a_limit_that_nothing_was_measured_against_is_never_met():
    found, _ = run({"float32": Cost(size_mb=measured(1))}, Cost(size_mb=limit(2), drop=limit(0.01)))
    assert found.tried[found.shipped].outcome == "UNPROVEN"


def test_where_the_device_is_at_hand_no_candidate_is_given_up_on_a_prediction():
    costs = {"float32": Cost(latency_p90_ms=measured(80)), "int8": Cost(latency_p90_ms=measured(20))}
    foreseen = {"int8": Cost(latency_p90_ms=predicted(60, 70, 90))}
    given = [named(name) for name in costs]

    def realise(candidate):
        return Tried(name=candidate.name, recipe=candidate.recipe.data(), cost=costs[candidate.name])

    found = search(
        given,
        Cost(latency_p90_ms=limit(50)),
        foresee=lambda candidate: foreseen.get(candidate.name, Cost()),
        realise=realise,
        on_device=True,
    )
    assert found.shipped == 1


def test_what_is_milder_than_needed_is_shown_with_its_prediction_and_not_built():
    costs = {"float32": Cost(size_mb=measured(1)), "int8": Cost(size_mb=measured(1))}
    found, built = run(costs, SMALL, foreseen={"int8": Cost(size_mb=predicted(0.2, 0.3, 0.4))})
    assert built == ["float32"]
    assert found.tried[1].reason == "not needed: a milder recipe fits"
    assert found.tried[1].cost.size_mb.value == 0.3


def test_an_int8_file_that_is_neither_smaller_nor_faster_is_not_shipped_for_its_size():
    budget = Cost(size_mb=limit(1.0))
    costs = {"float32": Cost(size_mb=measured(2.0)), "int8": Cost(size_mb=measured(1.999))}
    found, _ = run(costs, budget, speedups={"int8": 0.999})
    assert found.shipped == 0
    assert found.tried[1].reason == "not chosen: neither smaller nor faster than the float network"


def test_what_mends_a_limit_is_built_only_where_a_milder_recipe_misses_that_limit():
    mends, budget = {"reverted": "drop"}, Cost(size_mb=limit(2.0), drop=limit(0.01))
    costs = {
        "float32": Cost(size_mb=measured(4), drop=measured(0.0)),
        "int8": Cost(size_mb=measured(1), drop=measured(0.02)),
        "reverted": Cost(size_mb=measured(1.5), drop=measured(0.005)),
    }
    found, built = run(costs, budget, mends=mends)
    assert built == ["float32", "int8", "reverted"]
    assert found.shipped == 2
    too_large = {**costs, "int8": Cost(size_mb=measured(3), drop=measured(0.001))}
    found, built = run(too_large, budget, mends=mends)
    assert built == ["float32", "int8"]
    assert found.tried[2].reason == "not needed: no milder recipe misses the limit of quality drop"
    one_class = replace(budget, class_drop=limit(0.03))
    worse = {name: replace(cost, class_drop=measured(0.01)) for name, cost in costs.items()}
    worse["int8"] = Cost(size_mb=measured(1), drop=measured(0.005), class_drop=measured(0.09))
    found, built = run(worse, one_class, mends=mends)
    assert built == ["float32", "int8", "reverted"], "one class alone that loses too much is mended too"


def test_what_is_surely_missed_is_told_before_what_is_open():
    budget = Cost(latency_p90_ms=limit(10.0), size_mb=limit(1.0), drop=limit(0.05))
    cost = Cost(latency_p90_ms=predicted(5.0, 9.0, 15.0), size_mb=measured(2.0))
    lines = what_to_relax(judge(cost, budget))
    assert [line.split(" ")[0] for line in lines] == ["artifact", "latency", "nothing"]
    assert lines[1].count("measure") == 1
    assert lines[2].endswith("; give `evaluate` or calibration data")
