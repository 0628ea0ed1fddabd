"""The diagnosis of a dataset's label noise, and its description in sentences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

Matrix = tuple[tuple[float, ...], ...]

Intervals = tuple[tuple[tuple[float, float], ...], ...]

CLASS_DEPENDENT = "class-dependent"  # the kind for noise that no other kind fits
DECISIVE = math.log(20)  # nats of evidence: odds of 20 to 1
MAX_MISFIT = 0.1  # the verdict reports a larger one
MAX_ENTRIES = 8  # the verdict names the largest


@dataclass(frozen=True)
class KindEvidence:
    """The evidence for one kind of label noise, in nats per label.

    `log_likelihood` of the counts is marginal over all free parameters; it includes the predictions
    of a reference model in use. `behind` is the lead of the diagnosed kind, and `error` the
    standard error of that lead. `rate` is the most likely fraction of incorrect labels, None if the
    kind has no rate to fit.
    """

    kind: str
    rate: float | None
    log_likelihood: float
    behind: float
    error: float


@dataclass(frozen=True)
class ReferenceReport:
    """The diagnosis by a reference model alone, compared with `Diagnosis`.

    `kind`, `rate` (of incorrect labels) and `matrix` are as in `Diagnosis`, but count labels by the
    class that the reference model predicts, for the more confident half of each class. `distance`
    is the mean total variation between the rows of the two matrices, from 0 to 1. `agreement` is
    the fraction of anchors whose predicted class is that of their group. `heard` says whether the
    reference model contributes to the verdict, which requires that it predicts one class for half
    of each group, on average.
    """

    heard: bool
    agreement: float
    distance: float
    kind: str
    rate: float
    matrix: Matrix


@dataclass(frozen=True)
class MatrixEntry:
    """An entry of the transition matrix that no kind with one rate explains.

    `true` and `label` are numbers of classes; `rate` is p(label | true), with its 95 % interval.
    """

    true: int
    label: int
    rate: float
    between: tuple[float, float]


@dataclass(frozen=True)
class DetectionLimit:
    """The lowest rate at which some noise is detected in 19 of 20 datasets; 1 if at none.

    `rate` is a fraction of `of`. If it depends on the class, it is the lowest, and `highest` the
    highest one.
    """

    noise: str
    of: str
    rate: float
    highest: float

    def __str__(self) -> str:
        if self.rate == 1:
            return f"{self.noise} at any rate"
        to = f" to {self.highest:.1%}" if self.highest > self.rate else ""
        return f"{self.noise} below {self.rate:.1%}{to} of {self.of}"


@dataclass(frozen=True)
class Diagnosis:
    """The kind of noise in a dataset's labels, with its parameters and assumptions.

    `rate` is the fraction of incorrect labels, with the 95 % interval `between` if it was fitted.
    `evidence` has the diagnosed kind first and rests on `labels` anchors. `matrix` estimates
    p(given label | true class), true classes as rows, from counts; `forward` is the exact matrix of
    the verdict, zeros included, for a forward-corrected loss. `entropy` is the mean entropy of the
    rows of `matrix`, and `information` the mutual information between true class and given label,
    in bits. `strays` is the fraction of outliers: anchors that are hard or in the wrong group.
    `misfit` is the mean total variation between the counts and the verdict's expectation, outliers
    included, beyond sampling noise. `detectable`, for clean labels, is the lowest rate of symmetric
    noise that anchors like these reveal, and `limits` has the lowest rates of other noise too.
    `intervals` are the 95 % intervals of `matrix`. `entries` are those of class-dependent noise,
    the largest first, and `others` is the kind that fits the other entries. `indistinct` are pairs
    of classes with labels of each other that noise may cause or, as the network does not
    distinguish these classes, hard images.
    """

    kind: str
    rate: float
    between: tuple[float, float] | None
    verdict: str
    assumption: str
    evidence: tuple[KindEvidence, ...]
    labels: int
    matrix: Matrix
    forward: Matrix
    entropy: float
    information: float
    strays: float
    misfit: float
    detectable: float | None
    witness: ReferenceReport | None
    intervals: Intervals | None = None
    entries: tuple[MatrixEntry, ...] = ()
    others: str | None = None
    indistinct: tuple[tuple[int, int], ...] = ()
    limits: tuple[DetectionLimit, ...] = ()

    def described(self, classes: Sequence[str]) -> "Diagnosis":
        """Return the diagnosis with its verdict, in a sentence or two, and its assumptions."""
        reference = self.witness
        names_known = reference is not None and reference.heard
        rate = f"{self.rate:.1%} of the labels"
        if self.between:
            rate += " ({:.1%} to {:.1%})".format(*self.between)
        assumptions = ["some images of each class are unambiguous"]
        if names_known:
            assumptions.append("the reference model knows the class names")
        match self.kind:
            case "clean":
                verdict = (
                    "The labels are clean"
                    if names_known
                    else "The labels are clean, or the class names are permuted: both fit equally "
                    "well, and only a reference model or a few trusted labels can distinguish them"
                )
                verdict += f"; noise may be undetected: {', '.join(map(str, self.limits))}."
                if not names_known:
                    assumptions.append("the class names are correct")
            case "symmetric":
                verdict = f"{rate} are incorrect, each other class equally likely."
                assumptions.append("the most frequent label of each class is its own")
            case "pairs":
                verdict = f"{rate} are those of the next class (after the last, the first)."
                if not names_known:
                    assumptions.append(
                        f"labels flip to the next class ({1 - self.rate:.0%} flipped to the "
                        "previous one, with class names shifted by one, fits equally well)"
                    )
            case "permutation":
                labels = [classes[row.index(max(row))] for row in self.forward]
                names = [
                    f"{name} is labelled {label}"
                    for name, label in zip(classes, labels, strict=True)
                    if name != label
                ]
                verdict = f"The class names are permuted: {', '.join(names)}."
            case "wrong":
                verdict = (
                    "Every label is incorrect, each other class equally likely: complementary "
                    "labels, which name a class that an image does not have."
                )
                assumptions.append("the label that a class never has is its own")
            case "class-dependent":
                verdict = (
                    f"No known kind fits: the noise depends on the class. {self._named(classes)}. "
                    f"In all, {rate} are incorrect. The forward-corrected loss with the estimated "
                    "matrix suits this noise."
                )
                assumptions.append(
                    "noise does not depend on the image, so it is as frequent in images that do "
                    "not resemble the other class"
                )
                if not names_known:
                    assumptions.append("the class names are correct")
            case _:
                verdict = "The labels are independent of the images."
                assumptions = ["the network was trained well enough to find any dependence"]
        rivals = [
            one.kind
            for one in self.evidence[1:]
            if one.behind * self.labels < DECISIVE
            and (names_known or {one.kind, self.kind} != {"clean", "permutation"})
        ]
        if rivals:
            verdict += f" Not distinguishable from: {', '.join(rivals)}."
        if self.indistinct:
            pairs = ", ".join(f"{classes[a]} and {classes[b]}" for a, b in self.indistinct)
            verdict += (
                f" The network does not distinguish {pairs} well: noise between these classes may "
                "be undetected at any rate."
            )
        if self.misfit > MAX_MISFIT:
            verdict += f" No kind fits well: {self.misfit:.0%} of the labels are unexplained."
        if (
            reference
            and reference.kind != self.kind != CLASS_DEPENDENT
            and (names_known or self.kind == "random")
        ):
            verdict += f" By the reference model's predictions alone, the kind is {reference.kind}."
        assumption = f"Assumptions: {'; '.join(assumptions)}."
        return replace(self, verdict=verdict, assumption=assumption)

    def _named(self, classes: Sequence[str]) -> str:
        """Return a clause about `entries`, the largest first, and one about the other entries."""
        named = [
            f"{classes[entry.true]} is labelled {classes[entry.label]} in {entry.rate:.0%} "
            "({:.0%} to {:.0%})".format(*entry.between)
            for entry in self.entries[:MAX_ENTRIES]
        ]
        if more := len(self.entries) - len(named):
            named.append(f"{more} more entries of the matrix stand out")
        if self.others != "clean":
            named.append(f"the other labels have noise of the kind {self.others}")
        return "; ".join(named)
