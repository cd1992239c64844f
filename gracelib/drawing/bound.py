"""The figure of the CMI bound: its three terms for each teacher, and the paper's claim about their ratio.

Why a module of its own: the paper has no such figure, so it follows none of `drawing.correlations`' conventions but the
look: numbers drawn in a table beside the picture, caption and alt text written from them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, SMALL, family, family_handles, frame, scale_note, styled
from gracelib.evidence.summaries import cmi_at

CLAIMED = (5.0, 10.0)  #: "5-10 times smaller" (submission, appendix A), never shown
# Greys and shapes that no family has: colour and marker belong to the families, here as in every figure.
TERMS = {"gradient": ("H", "#333333"), "stability": ("H", "#d0d0d0"), "cross": ("8", "white")}
SMALLEST = 1e-3  #: a cross term below this share of the gradient term is drawn at the edge


def cmi_terms(
    cmi: pd.DataFrame,
    manner: dict[str, str],
    student: str,
    scale: str,
    temperature: float,
    n: int,
    nu: float,
    task: str | None = None,
) -> Drawn:
    """Left: the three terms of each teacher at one temperature. Right: gradient / stability against nu, claim shaded.

    `cmi` as `summaries.with_noise` gives it, `manner` the family of each teacher; `task` keeps the rows of one (None:
    the table is of one task). ValueError if the setting is not there.
    """
    cmi = cmi if task is None else cmi[cmi.task == task]
    own = cmi[(cmi.student == student) & np.isclose(cmi.temperature, temperature)]
    default = cmi_at(own, n, nu).sort_values("gradient", kind="stable").reset_index(drop=True)
    swept = own[(own.n == n) & (own.preconditioner == "smoothed") & (own.space == "h")].sort_values("nu")
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=mark,
            color=colour,
            markeredgecolor=EDGE,
            markeredgewidth=0.5,
            markersize=6,
            label=f"{name} term",
        )
        for name, (mark, colour) in TERMS.items()
    ]
    band = Patch(facecolor="#dddddd", label=f"claimed: {CLAIMED[0]:g} to {CLAIMED[1]:g}")
    note = scale_note(scale, len(default), len(default), f" at T = {temperature:g}")
    with styled():
        legend = [[*handles, band], family_handles(manner[t] for t in default.teacher)]
        fig, (left, right) = frame(DOUBLE, 0.9 + 0.22 * max(5, len(default)), legend, note, (1, 1))
        y = np.arange(len(default))
        for name, (mark, colour) in TERMS.items():
            shown = np.maximum(default[name], SMALLEST * default.gradient)
            left.scatter(shown, y, marker=mark, s=30, c=colour, edgecolors=EDGE, linewidths=0.5, zorder=3)
        left.set_xscale("log")
        left.set_yticks(y, default.teacher)
        left.set_ylim(len(default) - 0.5, -0.5)
        left.set_xlabel("term of the bound (nats)")
        right.axhspan(*CLAIMED, color="#dddddd", zorder=0)
        for teacher, rows in swept.groupby("teacher", sort=True):
            look = family(manner[teacher])
            right.plot(
                rows.nu,
                rows.ratio,
                color=look.color,
                marker=look.marker,
                markersize=5,
                markeredgecolor=EDGE,
                markeredgewidth=0.5,
                linewidth=1,
            )
        right.set_xscale("log")
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        right.yaxis.set_minor_formatter(NullFormatter())
        right.set_xlabel("smoothing nu")
        right.set_ylabel("gradient / stability")
        right.set_title(f"default nu = {nu:g}", fontsize=SMALL, pad=4)
    low, high = default.ratio.min(), default.ratio.max()
    spans = f"Gradient over stability is {low:.2g} to {high:.2g} at nu = {nu:g}"
    caption = (
        f"The terms of lemma B.1 for one step of the projected model, gradients h, n = {n} prompts left out one at a "
        f"time. Left: each teacher at T = {temperature:g} (cross terms below {SMALLEST:g} of the gradient term at "
        f"that edge). Right: gradient term over stability term as nu varies; the band is the paper's claim, which "
        f"no table of it shows. {spans}. Scale {scale}, {f'task {task}, ' if task else ''}student {student}, "
        f"{len(default)} teacher{'s' * (len(default) > 1)}."
    )
    table = pd.concat([default.assign(panel="left"), swept.assign(panel="right")], ignore_index=True)
    ours = {"ratio_lowest": low, "ratio_highest": high, "teachers": len(default)}
    return Drawn(
        fig,
        table,
        caption,
        f"Points on a logarithmic axis, and lines over nu. {spans}.",
        ours,
        {"ratio": {"value": "5-10", "source": "submission, appendix A"}},
    )
