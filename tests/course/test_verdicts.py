import pandas as pd
import pytest

from monodepth_nb.course.verdicts import CLAIMS, compare, verdicts


def results(**values):
    """Results from {"experiment/metric": value or one value per seed}."""
    rows = []
    for key, found in values.items():
        experiment, metric = key.split("/")
        for seed, value in enumerate(found if isinstance(found, list) else [found]):
            rows.append({"data": "streets", "experiment": experiment, "metric": metric, "seed": seed, "value": value})
    return pd.DataFrame(rows, columns=["data", "experiment", "metric", "seed", "value"])


def verdict(claim, profile="demo", **values):
    table = verdicts(results(**values), profile).set_index("id")
    return table.loc[claim, "verdict"]


def test_a_claim_without_its_number_is_not_tested_and_says_what_is_missing():
    table = verdicts(results(), "demo")
    assert list(table["id"]) == list(CLAIMS)
    assert (table["verdict"] == "not tested").all()
    assert table["evidence"].str.contains("was not measured").all()


def test_the_smoke_profile_judges_nothing():
    assert verdict("C1", "smoke", **{"loss_shares_end/appearance": 0.99}) == "not tested (smoke profile)"


def test_appearance_must_make_up_nine_tenths_of_the_loss():
    assert verdict("C1", **{"loss_shares_end/appearance": 0.95}) == "supported"
    assert verdict("C1", **{"loss_shares_end/appearance": 0.8}) == "not supported"


@pytest.mark.parametrize(
    ("pretrained", "loss", "holds", "halves"),
    [
        ([4.0, 5.0], 0.8, True, ("2 of 2 seeds", "higher by 0.10")),
        ([4.0, 5.0], 0.25, False, ("2 of 2 seeds", "lower by 0.45")),
        ([4.0, 7.0], 0.8, False, ("1 of 2 seeds", "higher by 0.10")),
    ],
)
def test_the_imagenet_claim_needs_both_a_better_map_and_a_loss_no_lower(pretrained, loss, holds, halves):
    arms = {"frozen ImageNet/epe": pretrained, "frozen random/epe": [4.5, 6.0]}  # compared seed by seed
    losses = {"frozen ImageNet/loss": loss, "frozen random/loss": 0.7}
    row = verdicts(results(**arms, **losses), "demo").set_index("id").loc["C3"]
    assert row["verdict"] == ("supported" if holds else "not supported")
    assert all(half in row["evidence"] for half in halves)


@pytest.mark.parametrize(
    ("theirs", "facts"),
    [([3.0, 2.5], ("2 of 2", "-1.2", "do not overlap")), ([1.5, 2.5], ("2 of 2", "-0.5", "ranges overlap"))],
)
def test_arms_are_compared_seed_by_seed_and_by_their_ranges(theirs, facts):
    rows = [("ours", seed, epe) for seed, epe in enumerate([1.0, 2.0])]
    rows += [("theirs", seed, epe) for seed, epe in enumerate(theirs)]
    line = compare(pd.DataFrame(rows, columns=["arm", "seed", "epe"]), "ours", "theirs", "epe")
    assert all(fact in line for fact in facts)


def test_a_positive_rank_correlation_of_loss_and_error_refutes_that_lower_losses_give_worse_maps():
    assert verdict("C4", **{"loss_vs_error/spearman_epe": 0.7}) == "not supported"
    assert verdict("C4", **{"loss_vs_error/spearman_epe": -0.7}) == "supported"


def test_generalisation_asks_for_an_interval_below_the_baseline():
    network = {"network/abs_rel": 0.12, "network/abs_rel_high": 0.14}
    assert verdict("C5", **network, **{"pixel_mean/abs_rel": 0.15}) == "supported"
    assert verdict("C5", **network, **{"pixel_mean/abs_rel": 0.13}) == "not supported"


def test_a_network_is_compared_with_the_pixel_mean_of_its_own_data():
    own = results(**{"network/abs_rel": 0.2, "network/abs_rel_high": 0.22, "pixel_mean/abs_rel": 0.15})
    other = results(**{"pixel_mean/abs_rel": 0.33})
    table = verdicts(pd.concat([own.assign(data="kitti"), other]), "demo").set_index("id")
    assert table.loc["C5", "verdict"] == "not supported" and "0.150" in table.loc["C5", "evidence"]


def test_semantics_are_supported_only_if_every_run_beats_every_control_run():
    controls = {"full set, no extra features/abs_rel": [0.12, 0.13], "full set, random features/abs_rel": [0.12, 0.14]}
    controls["pixel_mean/abs_rel"] = 0.2
    assert verdict("C6", **controls, **{"full set, semantic/abs_rel": [0.10, 0.11]}) == "supported"
    assert verdict("C6", **controls, **{"full set, semantic/abs_rel": [0.10, 0.125]}) == "not supported"


@pytest.mark.parametrize(("baseline", "too_short"), [(0.2, False), (0.09, True)])
def test_runs_that_do_not_beat_the_pixel_mean_are_called_too_short(baseline, too_short):
    arms = {f"full set, {arm}/abs_rel": [0.12, 0.13] for arm in ("no extra features", "random features", "semantic")}
    table = verdicts(results(**arms, **{"pixel_mean/abs_rel": baseline}), "demo").set_index("id")
    assert ("too short to decide" in table.loc["C6", "limits"]) == too_short


def test_a_missing_control_leaves_the_semantic_claim_untested():
    some = {"full set, no extra features/abs_rel": [0.12], "full set, semantic/abs_rel": [0.10]}
    assert verdict("C6", **some) == "not tested"
