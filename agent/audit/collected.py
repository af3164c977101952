"""Questions that a check answers by itself: it judges by the numbers of the catalogue, so that ok is a pass, warn is half, and fail is a fail."""

from __future__ import annotations

from agent.audit.known import GRADES, Known, graded, rule, worst
from agent.audit.scoring import Answer

ASKED = {
    "DATA-04": ("record the sha256 of what was learnt from in the lineage, keep the data, and watch lineage.data", ""),
    "DATA-05": ("record commit and data in the lineage, bind `code:`, and watch lineage.chain", ""),
    "DATA-08": ("watch importance.features, and drop the features that nothing depends on", "what it costs to fetch each feature"),
    "DATA-09": ("watch privacy.identifiers with the class of every column", ""),
    "DATA-10": ("score some rows at random, log which, and watch influence.holdout", ""),
    "MODEL-02": ("record the commit in the lineage, have another person review what is merged, and watch code.reviewed", ""),
    "MODEL-04": ("lock the packages with their hashes, record the lock's sha256 in the lineage, and watch code.pinned", ""),
    "MODEL-05": ("watch baselines.simple on labelled rows that nobody trains on", ""),
    "MODEL-06": ("record the search that chose the configuration in the lineage, and watch lineage.search", ""),
    "MODEL-08": ("watch groups.disparity for each group that matters", ""),
    "MODEL-09": ("watch hostile.inputs", ""),
    "MODEL-10": ("watch forgetting.eval with `old` and `guard` rows", "whether what was judged is what is served"),
    "DEPL-02": ("leave the results of the tests of each commit where code.tested finds them, and watch it", ""),
    "DEPL-08": ("watch hostile.degraded at an instance without its dependency", "how soon it is noticed, and how soon it is over"),
    "DEPL-09": ("serve formats that execute nothing (ONNX, safetensors), and watch lineage.artefacts", ""),
    "DEPL-10": ("deploy from a clean checkout, name who may change it, and watch code.deployed", ""),
    "MON-01": ("let Prometheus scrape the service, and watch scraped.families with a query for each family", ""),
    "MON-02": ("log inputs, answer, version and id of each prediction for 183 days, and watch traced.predictions", ""),
    "TEAM-06": ("watch code.lead_time", ""),
    "TEAM-07": ("count requests by caller, and watch scraped.consumers with those that are known", ""),
    "TEAM-08": ("keep a model card beside the code, with the numbers of the evaluation, and watch code.card", ""),
}
NOBODY = "no watch looks at it, so that nobody knows"
# Of these the catalogue says that not to have looked is itself a fail
LOOKED_AT = ("DATA-08", "DATA-10", "MODEL-05", "MODEL-06", "MODEL-08", "MODEL-10", "DEPL-08", "TEAM-08")


def _collected(item: str, earn: str, lacks: str) -> None:
    def answered(known: Known) -> Answer | None:
        """The last look of the watches that answer this question: ok is a pass, warn is half, fail is a fail."""
        return worst(known, item)

    def asked_for(known: Known) -> Answer | None:
        """The last look of the watches that answer this question: ok is a pass, warn is half, fail is a fail; and so is no such watch."""
        if not known.watching(item):
            return Answer("fail", known.seen_at, observed=NOBODY, evidence=known.configured("watches"))
        return worst(known, item)

    rule(item, earn=earn, lacks=lacks)(asked_for if item in LOOKED_AT else answered)


for _item, (_earn, _lacks) in ASKED.items():
    _collected(_item, _earn, _lacks)


@rule(
    "MODEL-03",
    earn="prove it: watchkeeper drill retrain SERVICE; or record as `repeats` what was trained again from the same pins, and watch lineage.repeated",
)
def repeated(known: Known) -> Answer | None:
    """The newest drill that trained twice, and the last look of the watches that answer this question, whichever is worse; neither is a fail."""
    drilled, watched = known.drilled("MODEL-03"), worst(known, "MODEL-03")
    if drilled is None:
        nobody = Answer("fail", known.seen_at, observed=f"never drilled, and {NOBODY}", evidence=known.configured("watches"))
        return watched if known.watching("MODEL-03") else nobody
    told = f"{drilled.watch.partition('/')[2]}: {drilled.headline}"
    tried = Answer(graded(drilled.status), drilled.looked_at, observed=told, evidence=known.rests(drilled))
    return min((one for one in (tried, watched) if one is not None), key=lambda one: GRADES.index(one.said))
