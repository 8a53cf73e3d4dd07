"""The course project's seven claims, judged from the numbers that the notebooks saved.

Each judge takes the results of all notebooks and returns whether the claim holds, the evidence and its limits. A
missing number makes the claim "not tested".
"""

import pandas as pd

SUPPORTED, REFUTED, UNTESTED = "supported", "not supported", "not tested"


def compare(runs: pd.DataFrame, arm: str, control: str, metric: str) -> str:
    """One line on two arms that share their seeds, for a `metric` of which less is better.

    runs: one row per run, with the columns "arm", "seed" and `metric`
    """
    values = runs.pivot(index="seed", columns="arm", values=metric)
    ours, theirs = values[arm], values[control]
    difference = (ours - theirs).dropna()
    apart = ours.max() < theirs.min() or theirs.max() < ours.min()
    return (
        f"{arm} against {control}: lower {metric} in {(difference < 0).sum()} of {len(difference)} seeds, "
        f"mean difference {difference.mean():+.2g}, ranges {'do not overlap' if apart else 'overlap'}"
    )


class Missing(LookupError):
    """A claim needs a number that was not measured; the message says which."""


def seeds(results: pd.DataFrame, experiment: str, metric: str) -> pd.Series:
    """One value per seed. Raises Missing."""
    chosen = (results["experiment"] == experiment) & (results["metric"] == metric)
    found = results[chosen].groupby("seed")["value"].last()
    if found.empty:
        raise Missing(f"{metric} of {experiment!r} was not measured: not run, or its weights were unavailable")
    return found


def mean(results: pd.DataFrame, experiment: str, metric: str) -> float:
    return seeds(results, experiment, metric).mean()


def on_data_of(results: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Only the results on the data of `experiment`, because notebooks may have been run on different data."""
    return results[results["data"].isin(results.loc[results["experiment"] == experiment, "data"])]


def appearance_dominates(r: pd.DataFrame):
    share = mean(r, "loss_shares_end", "appearance")
    return share > 0.9, f"appearance is {share:.0%} of the loss after training on one pair", "one pair, corrected loss"


def paint_is_misplaced(r: pd.DataFrame):
    paint, road = seeds(r, "lane_paint", "paint_epe"), seeds(r, "lane_paint", "road_epe")
    evidence = f"EPE {paint.mean():.2f} px on lane paint, {road.mean():.2f} px on plain road ({len(paint)} scenes)"
    return (paint > road).all(), evidence, "rendered scenes; each overfitted on its own"


def imagenet_helps_one_pair(r: pd.DataFrame):
    pretrained, random = seeds(r, "frozen ImageNet", "epe"), seeds(r, "frozen random", "epe")
    better = pretrained - random < 0
    loss = mean(r, "frozen ImageNet", "loss") - mean(r, "frozen random", "loss")
    evidence = (
        f"map better in {better.sum()} of {len(better)} seeds (EPE {pretrained.mean():.2f} px against "
        f"{random.mean():.2f} px): {'holds' if better.all() else 'fails'}; "
        f"loss {'lower' if loss < 0 else 'higher'} by {abs(loss):.2f}: {'fails' if loss < 0 else 'holds'}"
    )
    return better.all() and loss >= 0, evidence, "one pair, scored on itself; both halves must hold"


def lower_loss_is_worse_map(r: pd.DataFrame):
    rank = mean(r, "loss_vs_error", "spearman_epe")
    evidence = f"rank correlation of final loss and EPE {rank:+.2f} over rates 1e-4 to 1e-3"
    return rank < -0.6, evidence, "one pair, scored on itself, few steps; 12 runs reach 0.6 by chance"


def full_set_generalises(r: pd.DataFrame):
    r = on_data_of(r, "network")
    network, baseline = mean(r, "network", "abs_rel"), mean(r, "pixel_mean", "abs_rel")
    high = mean(r, "network", "abs_rel_high")
    evidence = f"AbsRel {network:.3f} on unseen scenes (95 % interval up to {high:.3f}), pixel-mean {baseline:.3f}"
    return high < baseline, evidence, "unseen scenes of the same kind as the training scenes"


def semantics_help(r: pd.DataFrame):
    r = on_data_of(r, "full set, semantic")
    semantic, none, random = (
        seeds(r, f"full set, {arm}", "abs_rel") for arm in ("semantic", "no extra features", "random features")
    )
    evidence = (
        f"AbsRel {semantic.mean():.3f} semantic, {none.mean():.3f} without, {random.mean():.3f} random features "
        f"({len(semantic)} seeds)"
    )
    better, limits = semantic.max() < min(none.min(), random.min()), "every semantic run must beat every control run"
    if min(semantic.min(), none.min(), random.min()) > mean(r, "pixel_mean", "abs_rel"):
        limits += "; no run beats the pixel mean, so these runs are too short to decide"
    return better, evidence, limits


def shiny_and_paint_fail(r: pd.DataFrame):
    shiny, paint, road = (mean(r, f"region {region}", "epe") for region in ("shiny", "lane paint", "plain road"))
    evidence = f"EPE {shiny:.2f} px on shiny surfaces, {paint:.2f} px on lane paint, {road:.2f} px on plain road"
    return shiny > road and paint > road, evidence, "rendered surfaces; errors in pixels, not corrected for depth"


CLAIMS = {
    "C1": ("the appearance term makes up almost all of the loss", appearance_dominates),
    "C2": ("overfitting one image places white lane paint at a wrong depth", paint_is_misplaced),
    "C3": ("the ImageNet encoder improves the map of one pair while its loss is no lower", imagenet_helps_one_pair),
    "C4": ("higher learning rates end at a lower loss and yet give worse maps", lower_loss_is_worse_map),
    "C5": ("training on the whole set generalises to unseen images", full_set_generalises),
    "C6": ("semantic features improve the maps significantly", semantics_help),
    "C7": ("reflective surfaces and lane markings remain the failure case", shiny_and_paint_fail),
}


def verdicts(results: pd.DataFrame, profile_name: str) -> pd.DataFrame:
    """One row per claim: id, claim, verdict, evidence, limits.

    results: of `results.load_results`; the smoke profile's numbers decide nothing
    """
    rows = []
    for claim_id, (claim, judge) in CLAIMS.items():
        try:
            holds, evidence, limits = judge(results)
            verdict = SUPPORTED if holds else REFUTED
        except Missing as reason:
            verdict, evidence, limits = UNTESTED, str(reason), ""
        if profile_name == "smoke":
            verdict = f"{UNTESTED} (smoke profile)"
        rows.append({"id": claim_id, "claim": claim, "verdict": verdict, "evidence": evidence, "limits": limits})
    return pd.DataFrame(rows)
