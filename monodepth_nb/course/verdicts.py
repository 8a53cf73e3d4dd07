"""The course project's claims, judged from the numbers that the notebooks saved.

A claim with two halves has two rows. Each judge takes the results of all notebooks and returns a verdict, its evidence
and its limits: *supported* or *contradicted* if the 95 % interval of a paired difference lies on one side of what is
claimed, else *undecided*, with the number of runs that would decide. C1 has no interval. A missing number means
*not tested*.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t  # comes with scikit-image

SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTED = "supported", "contradicted", "undecided", "not tested"
LABELS = {  # name and unit of a metric; of others: the name itself, no unit
    "epe": ("EPE", " px"), "d1_all": ("D1", " %"), "abs_rel": ("AbsRel", ""),
    "abs_rel_car": ("AbsRel of cars", ""), "abs_rel_pole": ("AbsRel of poles", ""),
    "epe_hidden": ("EPE of hidden pixels", " px"), "epe_plain": ("EPE of the plainest quarter", " px"),
}  # fmt: skip
# docs/results.md, first and last table (test frames). KITTI's pictures cannot be had without a download.
REAL_PAIRS = "on 217 real KITTI pairs two scratch networks had 0.236 and 0.217, the pixel mean 0.218: no clear gain"

SURFACE_PX = 0.05  # a smaller difference between surfaces does not count


# ---- Paired differences ----


class Difference(NamedTuple):
    """Mean difference of paired runs, or of scenes, and its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int | None = None  # of pairs; None: not known
    kind: str = "seeds"
    relative: bool = False  # in per cent, else in the unit of the metric

    def text(self, metric: str) -> str:
        name, unit = LABELS.get(metric, (metric, ""))
        unit = " %" if self.relative else unit
        mean = f"{name} {self.mean:+.3g}{unit}"
        if not math.isfinite(self.high):
            return f"{mean} (one run, so no interval)"
        origin = f" ({self.count} {self.kind}, paired)" if self.count else ""
        return f"{mean}, 95 % interval {self.low:+.3g} to {self.high:+.3g}{origin}"

    def judge(self, sign: int, margin: float = 0) -> str:
        """The verdict on the claim that the difference exceeds `margin` in the direction of `sign`: 1 up, -1 down."""
        low, high = sorted((sign * self.low, sign * self.high))
        if low > margin:
            return SUPPORTED
        return CONTRADICTED if high < margin else f"{UNDECIDED} ({self.remedy(sign * self.mean - margin)})"

    def direction(self) -> str:
        """In a word: lower, higher, or undecided."""
        verdict = self.judge(-1)
        return {SUPPORTED: "lower", CONTRADICTED: "higher"}.get(verdict, verdict)

    def remedy(self, distance: float) -> str:
        """How many pairs in all would decide, at even odds, if mean and spread stayed as they are."""
        half = (self.high - self.low) / 2
        if self.relative and math.isfinite(half):  # back to logarithms, in which the interval is symmetric
            half = (math.log1p(self.high / 100) - math.log1p(self.low / 100)) / 2
            distance = math.log1p(self.mean / 100)  # relative differences are judged without a margin
        if not math.isfinite(half) or not distance:
            return f"more {self.kind} are needed to tell"
        if not self.count:
            return f"about {max((half / distance) ** 2, 1.1):.1f} times the {self.kind} would decide"
        spread = half / t.ppf(0.975, self.count - 1) * math.sqrt(self.count)
        enough = (n for n in range(self.count + 1, 1000) if t.ppf(0.975, n - 1) * spread < abs(distance) * math.sqrt(n))
        return f"{next((f'about {n}' for n in enough), 'more than 1000')} {self.kind} in all would decide"


def paired(ours: pd.Series, theirs: pd.Series, kind: str = "seeds", relative: bool = False) -> Difference:
    """Difference of two series with one value per seed, as far as they share their seeds; interval by Student's t.

    relative: the change in per cent, from the mean difference of logarithms. In pixels, a single run with three times
              the error of the others would decide the mean; this happens at low learning rates
    """
    d = (np.log(ours) - np.log(theirs) if relative else ours - theirs).dropna()
    half = t.ppf(0.975, len(d) - 1) * d.std() / math.sqrt(len(d)) if len(d) > 1 else math.inf
    values = np.array((d.mean(), d.mean() - half, d.mean() + half))
    return Difference(*(100 * np.expm1(values) if relative else values).tolist(), len(d), kind, relative)


def compare(runs: pd.DataFrame, arm: str, control: str, metric: str, relative: bool = False) -> str:
    """One line on two arms that share their seeds: lower, higher, or undecided.

    runs: one row per run, with the columns "arm", "seed" and `metric`
    """
    values = runs.pivot(index="seed", columns="arm", values=metric)
    found = paired(values[arm], values[control], relative=relative)
    return f"{arm} against {control}: {found.text(metric)}: {found.direction()}"


# ---- The numbers ----


class Missing(LookupError):
    """A claim needs a number that was not measured; the message says which."""


def seeds(results: pd.DataFrame, experiment: str, metric: str) -> pd.Series:
    """One value per seed. Raises Missing."""
    chosen = (results["experiment"] == experiment) & (results["metric"] == metric)
    found = results[chosen].groupby("seed")["value"].last()
    if found.empty:
        raise Missing(f"{metric} of {experiment!r} was not measured: not run, or weights or masks were unavailable")
    return found


def mean(results: pd.DataFrame, experiment: str, metric: str) -> float:
    return seeds(results, experiment, metric).mean()


def arms_apart(results: pd.DataFrame, arm: str, control: str, metric: str, relative: bool = False) -> Difference:
    return paired(*(seeds(results, name, metric) for name in (arm, control)), relative=relative)


def recorded(results: pd.DataFrame, experiment: str, metric: str) -> Difference:
    """A difference whose interval a notebook computed over its test scenes, saved as `metric`, `low` and `high`."""
    return Difference(*(mean(results, experiment, name) for name in (metric, "low", "high")), kind="test scenes")


# ---- The claims ----


def appearance_dominates(r: pd.DataFrame):
    share = mean(r, "loss_shares_end", "appearance")
    verdict = SUPPORTED if share > 0.9 else CONTRADICTED
    return verdict, f"appearance is {share:.0%} of the loss after training on one pair", "one pair, corrected loss"


def paint_is_misplaced(r: pd.DataFrame):
    paint, road = (seeds(r, "lane_paint", f"{surface}_epe") for surface in ("paint", "road"))
    found = paired(paint, road, "scenes")
    limits = f"each scene overfitted by itself; counts from {SURFACE_PX} px on"
    return found.judge(1, SURFACE_PX), f"paint minus road at equal distance: {found.text('epe')}", limits


def imagenet_improves_the_map(r: pd.DataFrame):
    found = arms_apart(r, "frozen ImageNet", "frozen random", "epe")
    return found.judge(-1), f"against random weights: {found.text('epe')}", "one pair, scored on itself"


def imagenet_loss_is_no_lower(r: pd.DataFrame):
    found, margin = arms_apart(r, "frozen ImageNet", "frozen random", "loss"), 0.01 * mean(r, "frozen random", "loss")
    return found.judge(1, -margin), found.text("loss"), "one pair; up to 1 % lower counts as no lower"


def higher_rate(r: pd.DataFrame, metric: str, sign: int):
    """Does `metric` change in the direction `sign` from the course project's lowest rate to its highest?"""
    found = arms_apart(r, "rate 1e-3", "rate 1e-4", metric, relative=True)
    return found.judge(sign), f"1e-3 against 1e-4: {found.text(metric)}", "one pair, scored on itself"


def full_set_generalises(r: pd.DataFrame):
    found = recorded(r, "network_minus_pixel_mean", "abs_rel")
    return found.judge(-1), f"against the pixel mean: {found.text('abs_rel')}", f"such scenes only; {REAL_PAIRS}"


def semantics_help(r: pd.DataFrame, control: str):
    """Frozen semantic features against others in the same trunk; they count only if they tell the scenes apart."""
    found = arms_apart(r, "features, semantic", f"features, {control}", "abs_rel")
    evidence = f"against {control} features: {found.text('abs_rel')}"
    limits = "the segmenter has seen classes and street pictures; which of them helps is not separated"
    baseline = mean(r, "features, pixel mean", "abs_rel")
    if mean(r, "features, ImageNet", "abs_rel") > 0.9 * baseline:
        return f"{UNDECIDED} (train longer)", evidence, f"ImageNet does not beat the pixel mean {baseline:.3f} by 10 %"
    return found.judge(-1), evidence, limits


def surface_is_harder(experiment: str, r: pd.DataFrame):
    """An error larger by at least SURFACE_PX than that of other surfaces at the same distance."""
    found = recorded(r, experiment, "epe")
    limits = f"rendered surfaces, unseen scenes; counts from {SURFACE_PX} px on"
    return found.judge(1, SURFACE_PX), f"{experiment.replace('_', ' ')}: {found.text('epe')}", limits


CLAIMS = {
    "C1": ("the appearance term makes up almost all of the loss", appearance_dominates),
    "C2": ("overfitting one image places white lane paint at a wrong depth", paint_is_misplaced),
    "C3a": ("the ImageNet encoder improves the map of one pair", imagenet_improves_the_map),
    "C3b": ("its final loss is no lower", imagenet_loss_is_no_lower),
    "C4a": ("higher learning rates end at a lower loss", partial(higher_rate, metric="loss", sign=-1)),
    "C4b": ("and yet give worse maps", partial(higher_rate, metric="epe", sign=1)),
    "C5": ("training on the whole set generalises to unseen images", full_set_generalises),
    "C6a": ("semantic features improve the maps", partial(semantics_help, control="random")),
    "C6b": ("because they are semantic, not just pretrained", partial(semantics_help, control="ImageNet")),
    "C7a": ("shiny surfaces are harder than others of their class", partial(surface_is_harder, "shiny_minus_matched")),
    "C7b": ("lane paint is harder than plain road", partial(surface_is_harder, "paint_minus_road")),
}


def verdicts(results: pd.DataFrame, profile_name: str) -> pd.DataFrame:
    """One row per claim: id, claim, verdict, evidence, limits.

    results: of `results.load_results`; the smoke profile's numbers decide nothing
    """
    rows = []
    for claim_id, (claim, judge) in CLAIMS.items():
        try:
            verdict, evidence, limits = judge(results)
        except Missing as reason:
            verdict, evidence, limits = UNTESTED, str(reason), ""
        if profile_name == "smoke":
            verdict = f"{UNTESTED} (smoke profile)"
        rows.append({"id": claim_id, "claim": claim, "verdict": verdict, "evidence": evidence, "limits": limits})
    return pd.DataFrame(rows)


def print_verdicts(record, *claim_ids: str) -> None:
    """The verdicts that the numbers of one notebook's `Record` allow, a claim a line."""
    for row in verdicts(pd.DataFrame(record.rows), record.profile.name).itertuples():
        if row.id in claim_ids:
            print(f"{row.id}, {row.claim}: {row.verdict}; {row.evidence} ({row.limits})")
