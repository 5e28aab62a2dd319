"""Sentences on short trainings, no bolder than a few students allow: a tournament's lead, a rank check's verdict."""

from edgestill.flows.stages.results import RankCheckResult
from edgestill.pipeline.figures import duration, points
from edgestill.search.rank_correlation import ScorerRank
from edgestill.search.tournament import Lead


def lead_words(lead: Lead) -> str:
    """Words for a lead, such as `1.2 points ahead of A, within noise`."""
    unit = "" if lead.interval is None else " of mean recall"
    ahead = f"{points(lead.accuracy)}{unit} ahead of {lead.over}" if lead.accuracy else f"level with {lead.over}"
    return f"{ahead}, {'within' if lead.is_noise else 'more than'} noise"


def verdict(result: RankCheckResult) -> str:
    """Compare the configured scorer's ranking with a ranking by parameters, as far as these students tell."""
    taus = {row.scorer: row for row in result.rows}
    own = taus[result.configured]
    if result.configured == "params":
        return "params is the configured scorer" + (
            f": tau {rank_cells(own)[0]} {rank_cells(own)[1]}" if own.tau else ""
        )
    found = result.against_params
    if own.interval is None or found is None or taus["params"].interval is None:
        return f"{result.configured} and params cannot be compared: one of them has no rank correlation here"
    low, high = found.interval
    apart = _minus(f"tau {found.difference:+.2f} [{low:+.2f}, {high:+.2f}] against params")
    overlap = own.interval[0] <= taus["params"].interval[1] and taus["params"].interval[0] <= own.interval[1]
    overlapping = "; their own intervals overlap" if overlap else ""
    if low > 0:
        return f"{result.configured} ranks these {found.n} students better than params ({apart}{overlapping})"
    if high < 0:
        return f"{result.configured} ranks these {found.n} students worse than params ({apart}{overlapping})"
    return f"{found.n} students cannot tell whether {result.configured} ranks better than params ({apart}{overlapping})"


def conditions(result: RankCheckResult) -> str:
    """Conditions of a rank check; its figures hold for them alone."""
    figure = "accuracy" if result.metric is None else "mean recall"
    trained = sum(student.accuracy is not None for student in result.students)
    return (
        f"{trained} students, {result.epochs} epoch{'s' if result.epochs > 1 else ''} each on {result.train_images:,} "
        f"examples, one seed, {figure} on {result.validation_images:,} validation examples, "
        f"{duration(result.seconds)} of training; intervals are of the students alone."
    )


def rank_cells(row: ScorerRank) -> tuple[str, str, str, str]:
    """Table cells of a scorer: tau, interval, students, students without a score."""
    if row.tau is None or row.interval is None:
        return "–", "–", str(row.n), str(row.unscored)
    interval = f"[{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
    return _minus(f"{row.tau:.2f}"), _minus(interval), str(row.n), str(row.unscored)


def _minus(text: str) -> str:
    return text.replace("-", "−")
