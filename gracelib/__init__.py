"""gracelib: GRACE and its competitors for choosing a teacher, and the pipeline that tests them on trained students.

Public names are loaded on first use, so that reading tables and drawing figures never imports torch.
"""

from importlib import import_module

_NAMES = {  # module -> what it offers here
    "scores": "recalibrate grace Grace g_norm g_var g_vendi",
    "baselines": "SCORES compute_scores",
    "cmi": "cmi_bound",
    "intervals": "grace_interval grace_difference",
    "grid": "score_grid",
    "projection": "SignProjection",
    "features.gradients": "response_features",
    "features.files": "load_features",
    "text.problems": "load_problems",
    "text.grading": "grade_rows",
    "models.sampling": "sample",
    "models.finetuning": "fine_tune",
    "models.training": "train_causal_lm",
    "evidence.ranks": "spearman regret",
    "ranking.rank": "score_teachers",
}
_PUBLIC = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(f"gracelib.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'gracelib' has no attribute {name!r}; public names: {__all__}")


def __dir__() -> list[str]:
    return __all__
