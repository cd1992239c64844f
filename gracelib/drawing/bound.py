"""The figure of the CMI bound: its three terms for each teacher, and the paper's claim about their ratio.

Why a module of its own: the paper has no such figure, so it follows none of `drawing.correlations`' conventions but the
look.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from gracelib.drawing import captions, findings, marks
from gracelib.drawing.saving import Drawn
from gracelib.drawing.style import DOUBLE, EDGE, entry, family_handles, frame, styled
from gracelib.evidence.summaries import cmi_at

CLAIMED = (5.0, 10.0)  #: "5-10 times smaller" (submission, end of appendix B), never shown
TERMS = dict(zip(("gradient", "stability", "cross"), marks.LOOKS, strict=False))
SMALLEST = 1e-3  #: a cross term below this share of the gradient term is drawn at the edge


@styled()
def cmi_terms(
    cmi: pd.DataFrame,
    manner: Mapping[str, str],
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
    fig, (left, right) = frame(
        DOUBLE,
        0.9 + 0.22 * max(5, len(default)),
        [
            [
                *(entry(f"{name} term", **marks.line_look(look, line=False)) for name, look in TERMS.items()),
                Patch(facecolor=marks.SHADE, label=f"claimed: {CLAIMED[0]:g} to {CLAIMED[1]:g}"),
            ],
            family_handles(manner[t] for t in default.teacher),
        ],
        captions.scale_note(scale, len(default), len(default), f" at T = {temperature:g}"),
        (1, 1),
    )
    for name, (mark, face, _) in TERMS.items():
        left.scatter(
            np.maximum(default[name], SMALLEST * default.gradient),
            default.index,
            marker=mark,
            s=30,
            c=face,
            edgecolors=EDGE,
            linewidths=0.5,
            zorder=3,
        )
    marks.rows_axis(left, default.teacher)
    left.set(xscale="log", xlabel="term of the bound (nats)")
    for teacher, rows in swept.groupby("teacher", sort=True):
        marks.family_line(right, rows.nu, rows.ratio, manner[teacher])
    right.axhspan(*CLAIMED, color=marks.SHADE, zorder=0)
    right.set(
        xscale="log", yscale="log", xlabel="smoothing nu", ylabel="gradient / stability", title=f"default nu = {nu:g}"
    )
    marks.plain_log(right.yaxis, *right.get_ylim())
    return Drawn(
        fig,
        pd.concat([default.assign(panel="left"), swept.assign(panel="right")], ignore_index=True),
        caption=(
            f"{findings.bound(default.ratio, CLAIMED)} The terms of lemma B.1 for one step of the projected model, gradients h, n = {n} prompts left out one at a "
            f"time. Left: each teacher at T = {temperature:g} (cross terms below {SMALLEST:g} of the gradient term at "
            f"that edge). Right: gradient term over stability term as nu varies; the band is the paper's claim, which "
            f"no table of it shows. Scale {scale}, {f'task {task}, ' if task else ''}student {student}, "
            f"{captions.counted(len(default), 'teacher')}."
        ),
        alt="Points on a logarithmic axis, one row per teacher, and lines over nu.",
        ours={"ratio_lowest": default.ratio.min(), "ratio_highest": default.ratio.max(), "teachers": len(default)},
        paper={"ratio": {"value": "5-10", "source": "submission, end of appendix B"}},
    )
