"""The paper's claims, one line each: what it says and where, how it is measured here, and the rules that decide.

Why in code and fixed beforehand: "about .8" can be found in any number afterwards. Each claim has a rule (`claims.rules`)
for its *size*, written down before any number of the `lab` scale was seen. For a correlation the contrary reference is what
the paper's other scores reach in that setting: a GRACE that could as well be one of them does not bear the claim out. Its
*direction* is what is left without the paper's magnitudes, which are those of another world: that GRACE orders students
better than chance, that its pick beats a random one, that two settings differ by no more than the contrary reference. The
directions were added after lab's numbers had been seen; each is the weakest reading of its statement, and none was chosen
among several. Statements are in our own words; the numbers in `paper` are the paper's.
"""

from dataclasses import dataclass
from functools import partial

from gracelib.claims import measured as of
from gracelib.claims.measured import Measure
from gracelib.claims.rules import Rule, above, under


@dataclass(frozen=True)
class Claim:
    """A statement of the paper. `cells_only`: it needs the first student's cells alone, so other world seeds have it too."""

    name: str
    statement: str
    paper: str  #: what the paper reports, and where
    measure: Measure
    rule: Rule
    cells_only: bool = False
    #: Where the reason is looked into: a notebook, or a question of `verdicts` and the cells that it is put to.
    look: str = ""
    #: What the world must have (`claims.ingredients`), and "second" or "long" where it must have it.
    needs: str = "spread"
    #: The direction: (measure, rule); measure None: that of the claim. None: `Rule.direction`.
    direction: tuple[Measure | None, Rule] | None = None


CHANCE = (None, above(0))  #: of a correlation: better than chance


def _luck(**cells) -> tuple[Measure, Rule]:
    """Of a pick: better than a cell drawn at random."""
    return partial(of.better_than_chance, **cells), above(0)


# fmt: off
CLAIMS = (
    Claim("grace_first", "GRACE orders the students: correlation above .8", ".86, figure 2", of.correlation,
          above(.8, .55), True, "split",
          direction=CHANCE),
    Claim("grace_second", "GRACE orders a second student's runs above .7", ".74, figure 3",
          partial(of.correlation, where="second"), above(.7, .48), look="split second",
          needs="spread second", direction=CHANCE),
    Claim("grace_long", "GRACE orders the runs on a longer task above .8", ".88, figure 8", partial(of.correlation, where="long"),
          above(.8, .74), look="split long",
          needs="spread long", direction=CHANCE),
    Claim("grace_one_temperature", "At one temperature GRACE orders the teachers above .8",
          ".92 at T = 0.6, figure 5", partial(of.correlation, at_compared=True), above(.8, .55), True, "split compared",
          direction=CHANCE),
    Claim("ahead_of_g_norm", "GRACE orders better than G-Norm", ".86 against .53-.55, figure 2 and main table",
          partial(of.change, what="GRACE minus G-Norm", old="g_norm"), above(0), True, "norm"),
    Claim("ahead_of_g_vendi", "GRACE orders better than G-Vendi", ".86 against .44, figure 2", partial(of.change, what="GRACE minus G-Vendi", old="g_vendi"),
          above(0), True, "split"),
    Claim("ahead_of_loss", "GRACE orders better than the student's loss", ".86 against .44, figure 1",
          partial(of.change, what="GRACE minus Student loss", old="student_loss"), above(0), True, "split"),
    Claim("only_one_on_both", "GRACE is the only score that does well on both tasks",
          "only one above .8 on both, figure 4", of.ahead_of_all_on_both, above(0), look="norm; norm long"),
    Claim("teacher_accuracy", "Teacher accuracy hardly predicts the student", ".11, figure 1",
          partial(of.correlation, score="teacher_accuracy"), Rule(-.3, .3, -.55, .55), True, "accuracy; notebook 05b",
          needs="strong", direction=(partial(of.change, what="GRACE minus Teacher accuracy", old="teacher_accuracy"), above(0))),
    Claim("strongest", "The strongest teacher is not the best teacher",
          "6.5 (7.7) points behind, section 3.1 (final version)", partial(of.regret, score="teacher_accuracy"), above(.1, 0), True,
          "accuracy; notebook 05b",
          needs="strong"),
    Claim("gain", "GRACE's pick beats the strongest teacher", "7 points, final version",
          of.gain_over_strongest, above(0), True, "accuracy; notebook 05b",
          needs="strong"),
    Claim("regret_first", "GRACE's pick costs less than a point", ".3 points, others 4.9 or more, main table",
          of.regret, under(1, 4.9), True, "noise",
          direction=_luck()),
    Claim("regret_long", "On the longer task GRACE's pick costs less than 5.9 points, the strongest teacher's price",
          "3.9 and at least 5.9, final version", partial(of.regret, where="long"), under(5.9), look="noise long",
          needs="spread long", direction=_luck(where="long")),
    Claim("regret_one_temperature", "At one temperature GRACE picks the best teacher (within a point)",
          "0 points, figure 5", partial(of.regret, at_compared=True), under(1, 4.9), True, "noise compared",
          direction=_luck(at_compared=True)),
    Claim("budgets", "GRACE orders well under every size budget", ".75 or more, figure 7", of.budgets,
          above(.75, .55), True, "notebook 06",
          direction=CHANCE),
    Claim("budget_regret", "GRACE's pick costs less than a point under every size budget",
          "under 1, others 2.5 or more, figure 14", partial(of.regret, parts=of.inside_budgets), under(1, 2.5), True, "notebook 06",
          direction=_luck(parts=of.inside_budgets)),
    Claim("family_regret", "Within a family GRACE's pick costs about a point", "about 1, others 3 or more, figure 13",
          partial(of.regret, parts=of.families, mean=True), under(1.5, 3), True, "notebook 06",
          direction=_luck(parts=of.families, mean=True)),
    Claim("within_teacher", "GRACE orders one teacher's temperatures", ".75, others .53 and .59, figure 7",
          of.within_teacher, above(.7, .59), True, "ceiling",
          needs="heat", direction=CHANCE),
    Claim("temperature_regret", "The temperature GRACE picks is nearly the best (within 2 points)",
          "0.1 off for two teachers, figure 6", of.temperature_regret, under(2, 3), True, "ceiling",
          needs="heat", direction=(of.temperature_gain, above(0))),
    Claim("temperature_gain", "The temperature GRACE picks is better than a random one", "(implied), figure 6",
          of.temperature_gain, above(0), True, "ceiling",
          needs="heat"),
    Claim("both_rise", "G-Norm and G-Vendi both rise with temperature", "figure 6", of.both_rise, above(0), True,
          "notebook 06",
          needs="heat"),
    Claim("opposite", "G-Norm and G-Vendi therefore recommend opposite temperatures", "figure 6",
          of.opposite_temperatures, above(.5, 0), True, "notebook 06",
          needs="heat"),
    Claim("warmer", "A low temperature is not always best", "best at 0.8 and 0.4 of 0.3 to 1.0, figure 6",
          of.warmer_is_better, above(of.WARMER, .05), True, "ceiling",
          needs="copies"),
    Claim("folds", "The correlation is flat for six folds or more", "C >= 6, figure 20", of.folds_flat,
          under(.05, .1), look="notebook 07",
          needs="rows"),
    Claim("larger_d", "A larger d helps the first student", ".86 to .90, figure 9",
          partial(of.settings, name="d", new=lambda c: c.d_kept, old=lambda c: c.d), above(0), look="notebook 05b",
          needs="rows"),
    Claim("larger_d_second", "A larger d helps the second student", ".74 to .81, figure 10",
          partial(of.settings, name="d", new=lambda c: c.d_kept, old=lambda c: c.d, where="second"), above(0), look="notebook 05b",
          needs="rows"),
    Claim("more_prompts", "More prompts help", "rises with n, figure 19",
          partial(of.settings, name="n", new=lambda c: c.n_prompts, old=of.fewest_prompts), above(0), look="notebook 05b",
          needs="rows"),
    Claim("half_as_many", "Half as many prompts as d are best", "n = d/2, appendix D.3",
          of.half_as_many, above(0), look="notebook 05b",
          needs="rows"),
    Claim("two_responses", "Two responses per prompt are worse than four", ".70 against .86, appendix D.3",
          partial(of.settings, name="m", new=lambda c: c.m, old=lambda c: c.m // 2), above(0), look="notebook 07",
          needs="rows"),
    Claim("eight_responses", "Four responses per prompt are as good as eight", ".86 against .87, appendix D.3",
          partial(of.settings, name="m", new=lambda c: c.m_kept, old=lambda c: c.m), Rule(-.05, .05, -.1, .1), look="notebook 07",
          needs="rows"),
    Claim("filtering", "Filtering out wrong responses makes students worse", "figure 15", of.filtered_points,
          under(0), look="notebook 07",
          needs="wrong"),
    Claim("filtered_correlation", "Filtering changes GRACE's correlation little", "slightly higher, figure 16",
          of.filtered_correlation, Rule(-.1, .1, -.3, .3), look="notebook 07",
          needs="wrong"),
    Claim("bias", "GRACE's bias spikes for random text", "final version",
          of.spike, above(.95, .5), look="notebook 05, the absurd teachers"),
    Claim("variance", "Without its bias GRACE orders real teachers alike", "final version", partial(of.change, what="GRACE-Variance minus GRACE", new="grace_variance"),
          Rule(-.05, .05, -.1, .1), True, "split"),
    Claim("self", "G-Vendi likes self-distillation, which teaches nothing", "5.93 and 4 %, section 2.1",
          of.vendi_likes_self, above(.5), look="notebook 05, the absurd teachers"),
    Claim("stability", "The stability term of the bound is at least 5 times smaller", "5-10 times, appendix B",
          of.stability_ratio, above(5, 1), look="notebook 09",
          needs="rows"),
    Claim("greedy", "Greedy accuracy is harder to predict than Average@k", ".70, figure 11",
          partial(of.change, what="Spearman with Average@{k} minus with greedy", accuracy="greedy"), above(0), True, "noise greedy"),
    Claim("best_of_k", "Best-of-k is harder to predict than Average@k", ".64, figure 12",
          partial(of.change, what="Spearman with Average@{k} minus with best-of", accuracy="best_of"), above(0), True, "noise best_of",
          needs="ceiling"),
    Claim("pick_elsewhere", "GRACE's pick is still the best by greedy accuracy and best-of-k (within a point)",
          "figures 11 and 12", partial(of.regret, accuracies=("greedy", "best_of")), under(1, 4.9), True, "noise greedy; noise best_of",
          direction=_luck(accuracies=("greedy", "best_of"))),
    Claim("subsets", "GRACE's order is robust over subsets of 60%", "figure 23", of.subsets, above(.8, .55), True,
          "split",
          direction=CHANCE),
    Claim("vendi_without_one", "G-Vendi is better without the most self-like teacher", ".44 to .58, figure 24",
          partial(of.without_self_like, score="g_vendi"), above(0), True, "notebook 06"),
    Claim("grace_without_one", "GRACE is unchanged without that teacher", ".86, figure 24",
          partial(of.without_self_like, score="grace"), Rule(-.05, .05, -.1, .1), True, "notebook 06"),
    Claim("norm_short", "The gradient's norm falls as 1/log|y|", "figure 21", partial(of.length_power, where="first"),
          Rule(.5, 1.5, 0, 2), look="notebook 08",
          needs="lengths", direction=CHANCE),
    Claim("norm_long", "On the longer task the norm falls as 1/(log|y|)^2", "figure 22", partial(of.length_power, where="long"),
          Rule(1.5, 2.5, 1, 3), look="notebook 08",
          needs="lengths long", direction=CHANCE),
    Claim("epochs", "Longer training does not over-optimise", "figure 17", partial(of.longer_training, axis="epochs"),
          above(-1, -3), look="notebook 07",
          needs="ended"),
    Claim("generations", "More responses per prompt help", "figure 18", partial(of.longer_training, axis="generations"), above(0),
          look="notebook 07"),
)
# fmt: on
