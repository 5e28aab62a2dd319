"""Importance of hyperparameters, by Optuna, from the trials of a finished tuning."""

from collections.abc import Mapping

from edgestill.distill.result import TuneResult
from edgestill.distill.tunable import TuningRange

FEWEST = 4  # completed trials; fewer tell nothing


def importances(tuned: TuneResult, ranges: Mapping[str, TuningRange]) -> dict[str, float]:
    """Share of the trials' variance that each hyperparameter explains (fANOVA, Hutter et al. 2014), largest first.

    Empty with too few completed trials, or equal ones.
    """
    import optuna

    completed = [t for t in tuned.trials if t.state == "COMPLETE" and t.value is not None]
    names = [name for name in ranges if all(name in trial.params for trial in completed)]
    if len(completed) < FEWEST or len({trial.value for trial in completed}) == 1 or not names:
        return {}
    distributions = {
        name: optuna.distributions.FloatDistribution(*ranges[name][:2], log=ranges[name].scale == "log")
        for name in names
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for trial in completed:
        params = {name: min(max(trial.params[name], ranges[name].low), ranges[name].high) for name in names}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=dict(distributions), value=trial.value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
