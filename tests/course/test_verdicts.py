import numpy as np
import pandas as pd
import pytest

from monodepth_nb.course.verdicts import CLAIMS, Difference, compare, paired, verdicts


def results(**values):
    """Results from {"experiment/metric": value or one value per seed}."""
    rows = []
    for key, found in values.items():
        experiment, metric = key.split("/")
        for seed, value in enumerate(found if isinstance(found, list) else [found]):
            rows.append({"data": "streets", "experiment": experiment, "metric": metric, "seed": seed, "value": value})
    return pd.DataFrame(rows, columns=["data", "experiment", "metric", "seed", "value"])


def row(claim, profile="demo", **values):
    return verdicts(results(**values), profile).set_index("id").loc[claim]


def verdict(claim, profile="demo", **values):
    """The first word or two, without what would decide."""
    return row(claim, profile, **values)["verdict"].split(" (")[0]


# ---- Paired differences ----


def test_a_spread_that_all_arms_share_does_not_hide_a_difference():
    scene = pd.Series([1.0, 5.0, 9.0])  # hard and easy seeds: the ranges of both arms overlap
    found = paired(scene - 0.5 + pd.Series([0.01, -0.01, 0.0]), scene)
    assert found.low < -0.5 < found.high < 0 and found.judge(-1) == "supported"


def test_the_interval_is_students_of_the_shared_seeds():
    found = paired(pd.Series([1.0, 2.0, 3.0, 7.0]), pd.Series([0.0, 0.0, 0.0]))
    assert (found.mean, found.count) == (2, 3)
    assert found.high - found.mean == pytest.approx(4.303 / 3**0.5, rel=1e-3)  # t of 2 degrees of freedom, sd 1


def test_more_seeds_decide_a_difference_that_few_leave_open_though_the_ranges_overlap():
    theirs, noise = pd.Series([0.3, -0.4] * 5), pd.Series([0.1, -0.1] * 5)
    ours = theirs - 0.2 + noise
    assert "undecided" in paired(ours[:2], theirs[:2]).judge(-1)
    assert paired(ours, theirs).judge(-1) == "supported"


@pytest.mark.parametrize(
    ("interval", "up", "down"),
    [((0.2, 0.1, 0.3), "supported", "contradicted"), ((-0.2, -0.3, -0.1), "contradicted", "supported")],
)
def test_an_interval_on_one_side_of_zero_decides_both_ways(interval, up, down):
    found = Difference(*interval, count=5)
    assert (found.judge(1), found.judge(-1)) == (up, down)


def test_an_undecided_difference_tells_how_many_pairs_would_decide_it():
    seeds = pd.Series([0.0, 0.2, 0.3])
    few = paired(seeds, 0 * seeds).judge(1)
    assert "about 6 seeds" in few  # 2.571 * 0.1528 / 6**0.5 is below the mean of 0.1667; with 5 seeds it is above
    assert "4.0 times" in Difference(0.1, -0.1, 0.3).judge(1)  # half as wide: four times as many
    for hopeless in (Difference(0.0, -0.1, 0.1, count=4), paired(pd.Series([1.0]), pd.Series([0.0]))):
        assert hopeless.judge(1).startswith("undecided")


def test_an_excess_below_the_margin_is_no_excess_and_one_across_it_is_undecided():
    judged = [Difference(m, m - 0.01, m + 0.01, 9).judge(1, margin=0.05) for m in (0.02, 0.045, 0.08)]
    assert [text.split(" (")[0] for text in judged] == ["contradicted", "undecided", "supported"]


@pytest.mark.parametrize(("theirs", "word"), [([3.0, 3.1, 3.2], "lower"), ([0.5, 0.4, 0.6], "higher")])
def test_two_arms_are_compared_seed_by_seed_in_one_line(theirs, word):
    rows = [("ours", seed, epe) for seed, epe in enumerate([1.0, 1.1, 1.2])]
    rows += [("theirs", seed, epe) for seed, epe in enumerate(theirs)]
    line = compare(pd.DataFrame(rows, columns=["arm", "seed", "epe"]), "ours", "theirs", "epe")
    assert line.endswith(word) and "3 seeds" in line and "\n" not in line


# ---- Claims ----


def test_a_claim_without_its_number_is_not_tested_and_says_what_is_missing():
    table = verdicts(results(), "demo")
    assert list(table["id"]) == list(CLAIMS)
    assert (table["verdict"] == "not tested").all()
    assert table["evidence"].str.contains("was not measured").all()


ROAD = {"lane_paint/road_epe": [0.2, 0.9, 2.0]}
MAPS = {"frozen ImageNet/epe": [4.0, 5.0, 4.5], "frozen random/epe": [6.0, 7.1, 6.4]}
LOWER_LOSS = {"frozen ImageNet/loss": [0.5, 0.51, 0.5], "frozen random/loss": [0.7, 0.7, 0.71]}
LOW_RATE = {"rate 1e-4/loss": [0.9, 0.8, 0.85], "rate 1e-4/epe": [5.0, 6.0, 5.5]}
HIGH_RATE = {"rate 1e-3/loss": [0.7, 0.6, 0.66], "rate 1e-3/epe": [4.0, 4.9, 4.6]}
ARMS = "ImageNet", "random", "semantic", "pixel mean"
IMAGENET, RANDOM, SEMANTIC, MEAN = (f"features, {arm}/abs_rel" for arm in ARMS)
FEATURES = {IMAGENET: [0.15, 0.16, 0.17], RANDOM: [0.2, 0.22, 0.21]}
BETTER = FEATURES | {SEMANTIC: [0.1, 0.11, 0.12]}
FACTS = {  # numbers, and the verdicts to which they lead
    "appearance makes up nine tenths of the loss": ({"loss_shares_end/appearance": 0.95}, {"C1": "supported"}),
    "appearance makes up less": ({"loss_shares_end/appearance": 0.8}, {"C1": "contradicted"}),
    "paint is worse in every scene": (ROAD | {"lane_paint/paint_epe": [0.5, 1.2, 2.31]}, {"C2": "supported"}),
    "paint is worse in most scenes": (ROAD | {"lane_paint/paint_epe": [0.3, 0.5, 2.1]}, {"C2": "undecided"}),
    "the map and the loss of an encoder are judged apart": (
        MAPS | LOWER_LOSS, {"C3a": "supported", "C3b": "contradicted"},
    ),
    "a loss lower by less than a hundredth is no lower": (
        {"frozen ImageNet/loss": [0.699, 0.7, 0.7], "frozen random/loss": [0.7, 0.701, 0.7]}, {"C3b": "supported"},
    ),
    "a lower loss and a better map contradict half a claim": (
        LOW_RATE | HIGH_RATE, {"C4a": "supported", "C4b": "contradicted"},
    ),
    "semantics are judged against each control": (
        FEATURES | {SEMANTIC: [0.151, 0.158, 0.171], MEAN: 0.3}, {"C6a": "supported", "C6b": "undecided"},
    ),
    "semantics beat a control that beats the pixel mean": (BETTER | {MEAN: 0.3}, {"C6b": "supported"}),
    "semantics beat a control that does not, by a tenth": (BETTER | {MEAN: 0.17}, {"C6b": "undecided"}),
    "a missing control": ({IMAGENET: [0.2, 0.2], SEMANTIC: [0.1, 0.1], MEAN: 0.3}, {"C6a": "not tested"}),
}  # fmt: skip


@pytest.mark.parametrize(("numbers", "expected"), FACTS.values(), ids=FACTS)
def test_numbers_lead_to_verdicts_but_not_those_of_the_smoke_profile(numbers, expected):
    assert {claim: verdict(claim, **numbers) for claim in expected} == expected
    assert {verdict(claim, "smoke", **numbers) for claim in expected} == {"not tested"}


def test_one_run_that_fails_does_not_decide_a_relative_difference_alone():
    theirs = pd.Series([4.4, 12.5, 5.0, 4.6, 4.7, 4.5, 4.8, 4.6, 4.9, 4.4])
    ours = 0.85 * theirs.where(theirs < 10, 4.5)  # the run that failed is cured, all are 15 % lower
    assert "undecided" in paired(ours, theirs).judge(-1)
    found = paired(ours, theirs, relative=True)
    assert found.judge(-1) == "supported" and found.low < found.mean < found.high < 0
    assert paired(2 * theirs, theirs, relative=True).mean == pytest.approx(100)  # in per cent
    unsure = theirs[:5], pd.Series([1.5, 20.0, 9.0, 2.0, 4.0])
    for pair in (unsure, unsure[::-1]):
        in_logarithms = paired(*map(np.log, pair))
        assert "undecided" in in_logarithms.judge(-1)  # and after as many more seeds
        assert paired(*pair, relative=True).judge(-1) == in_logarithms.judge(-1)


def test_generalisation_asks_for_an_interval_below_the_pixel_mean_and_names_the_real_pairs():
    network = {"network_minus_pixel_mean/abs_rel": -0.2, "network_minus_pixel_mean/low": -0.3}
    found = row("C5", **network, **{"network_minus_pixel_mean/high": -0.1})
    assert found["verdict"] == "supported" and "KITTI" in found["limits"]
    assert verdict("C5", **network, **{"network_minus_pixel_mean/high": 0.1}) == "undecided"


@pytest.mark.parametrize(("claim", "surface"), [("C7a", "shiny_minus_matched"), ("C7b", "paint_minus_road")])
def test_a_hundredth_of_a_pixel_never_makes_a_surface_a_failure_case(claim, surface):
    for epe, wanted in ((0.01, "contradicted"), (-0.01, "contradicted"), (0.4, "supported")):
        numbers = {f"{surface}/epe": epe, f"{surface}/low": epe - 0.005, f"{surface}/high": epe + 0.005}
        assert verdict(claim, **numbers) == wanted
