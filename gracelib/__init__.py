"""gracelib: GRACE and its competitors for choosing a teacher, and the pipeline that tests them on trained students.

Public names are loaded on first use, so that reading tables and drawing figures never imports torch.
"""

from __future__ import annotations

from importlib import import_module

_PUBLIC = {
    "recalibrate": "scores",
    "grace": "scores",
    "Grace": "scores",
    "g_vendi": "scores",
    "g_var": "scores",
    "g_norm": "scores",
    "spearman": "evidence.ranks",
    "regret": "evidence.ranks",
    "response_features": "features.gradients",
    "score_teachers": "ranking.rank",
    "SignProjection": "projection",
    "sample_responses": "models.decoding",
    "train_causal_lm": "models.training",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(f"gracelib.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'gracelib' has no attribute {name!r}; public names: {__all__}")


def __dir__() -> list[str]:
    return __all__
