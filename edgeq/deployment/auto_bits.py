"""`--bits auto`: measures every layer of one model and chooses its bits under budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.deployment.layer_times import LayerTimes, layer_times, time_ratio
from edgeq.errors import BackendError, QuantizationError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.metrics import disagreement_rate, predicted_class
from edgeq.passes import channels_last, lower
from edgeq.quantize import sensitivity
from edgeq.quantize.calibrate import float_outputs, slice_feeds
from edgeq.quantize.layers import WEIGHTS, bias_name, is_layer
from edgeq.quantize.mixed import DISAGREEMENT, LATENCY, SIZE, Choice, Solution, by_gain, least, solve, total_cost
from edgeq.quantize.plan_file import LayerPlan, PlanFile
from edgeq.quantize.sensitivity import Sensitivity
from edgeq.session import Session, native_module
from edgeq.simulate import simulate

SIZE_ROUNDS = 20
"""How often the limit of the size is corrected where metadata cross an alignment of the file; mostly not at all."""


@dataclass(frozen=True, slots=True)
class Job:
    """What bits are chosen for.

    Attributes:
        graph: The float network.
        kept: Layers that keep 8 bits, and why.
        quantize: Quantizes with these bits, as the export will.
        quick: Quantizes all weights to 4 bits with less effort: what each layer is measured with.
        file_bytes: Size of the model.edgeq that a quantized graph becomes in an export with mixed precision.
        full_bytes: Size of the model.edgeq that it becomes in the w8a8 export.
        samples: Calibration samples by name.
        held_back: Samples that calibrated nothing, by name; None where disagreement is no budget.
        progress: Called with the stage, what is done of it, and how much there is (None: unknown).
    """

    graph: Graph
    kept: Mapping[str, str]
    quantize: Callable[[Mapping[str, int]], Graph]
    quick: Callable[[], Graph]
    file_bytes: Callable[[Graph], int]
    full_bytes: Callable[[Graph], int]
    samples: Mapping[str, Array]
    held_back: Mapping[str, Array] | None
    progress: Callable[[str, int, int | None], None]


def run_integers(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """Runs a quantized NCHW graph: natively where the engine is built, else in the simulator; the same numbers."""
    try:
        native_module()
    except BackendError:
        return simulate(graph, feeds)
    found = Session(encode(lower(channels_last(graph))), threads=0).run(feeds)
    return found if isinstance(found, list) else [found]


def hybrid(eight: Graph, four: Graph, bits: Mapping[str, int]) -> Graph:
    """Returns the 8-bit network with the weights and biases of the 4-bit one in the layers that `bits` gives 4."""
    others = {node.name: node for node in four.nodes}
    graph = eight.copy()
    for node in eight.nodes:
        if bits.get(node.name) != 4:
            continue
        other = others[node.name]
        graph.add_tensor(four.tensor(other.inputs[WEIGHTS]).with_(name=node.inputs[WEIGHTS]))
        if bias_name(node):
            graph.add_tensor(four.tensor(bias_name(other)).with_(name=bias_name(node)))
    return graph


def choose_bits(job: Job, budget: Mapping[str, float]) -> PlanFile:
    """Chooses the bits of every layer.

    Args:
        job: What they are chosen for.
        budget: From `edgeq.quantize.mixed.parse_budget`; at least one.

    Returns:
        The plan; its `calibration` and its model's name and hash are the caller's to fill in.

    Raises:
        QuantizationError: If a budget cannot be met, with what is possible.
        UsageError: If no budget is given, or one cannot be measured here.
    """
    if not budget:
        raise UsageError("--bits auto needs a budget, for example --budget size=0.55; see edgeq export --help")
    if LATENCY in budget and not _is_native():
        raise UsageError("the budget latency is measured in the native engine, which is not built for this Python.")
    layers = [node.name for node in job.graph.nodes if is_layer(node)]
    job.progress("quantizing to 8 bits", 0, None)
    eight = job.quantize(dict.fromkeys(layers, 8))
    four = job.quick()
    found = sensitivity.measure(
        eight,
        four,
        job.samples,
        float_outputs(job.graph, job.samples),
        run_integers,
        lambda done, count: job.progress("measuring layers", done, count),
    )
    times = None
    if _is_native():
        job.progress("timing layers", 0, None)

        def narrow(names: set[str]) -> Graph:
            return hybrid(eight, four, dict.fromkeys(names, 4))

        times = layer_times(eight, narrow, layers, slice_feeds(eight, job.samples, 0, 1))
    search = _Search(job, budget, found, eight, four, times)
    job.progress("choosing bits", 0, None)
    solution = search.run()
    optimum = {"sensitivity": solution.objective, "bound": solution.bound, "gap": solution.gap}
    return PlanFile(
        search.entries(found, solution.bits),
        budget=dict(budget),
        reached=search.reached(solution.bits),
        optimum=optimum,
    )


def _is_native() -> bool:
    try:
        native_module()
    except BackendError:
        return False
    return True


class _Search:
    """Finds bits within the budgets."""

    def __init__(
        self,
        job: Job,
        budget: Mapping[str, float],
        found: Sequence[Sensitivity],
        eight: Graph,
        four: Graph,
        times: LayerTimes | None,
    ) -> None:
        self.job = job
        self.budget = budget
        self.eight = eight
        self.four = four
        self.times = times
        self.order: list[str] = []
        self.answers: npt.NDArray[np.int64] | None = None
        self.full_bytes = job.full_bytes(eight)
        self.mixed_bytes = job.file_bytes(eight)
        self.elements = {
            node.name: int(np.prod(eight.tensor(node.inputs[WEIGHTS]).shape)) for node in eight.nodes if is_layer(node)
        }
        self.choices = [self._choice(one) for one in found]

    def _choice(self, found: Sensitivity) -> Choice:
        """What a layer costs; its bytes with what alignment in the file adds, so that they add up to the file's."""
        wide = float(self.elements[found.layer])
        saved = self.mixed_bytes - self.job.file_bytes(hybrid(self.eight, self.four, {found.layer: 4}))
        costs = {SIZE: (wide - saved, wide)}
        if self.times is not None:
            costs[LATENCY] = self.times.layers[found.layer]
        return Choice(found.layer, found.value, costs, found.layer in self.job.kept)

    def run(self) -> Solution:
        """Returns the best bits within the budgets; raises QuantizationError naming what is possible without any."""
        limits = {}
        if LATENCY in self.budget:
            assert self.times is not None
            limits[LATENCY] = self.budget[LATENCY] * self.times.total_ms - self.times.rest_ms
            self._check_latency(limits[LATENCY])
        if SIZE in self.budget:
            solution = self._within_size(limits)
        elif limits:
            solution = solve(self.choices, limits)
        else:
            return self._gate()
        if DISAGREEMENT in self.budget:
            rate = self._disagreement(self.job.quantize(solution.bits))
            if rate > self.budget[DISAGREEMENT]:
                raise QuantizationError(
                    f"the best plan within the other budgets disagrees with the float network on {rate:.2%} of the "
                    f"held-back samples, all layers at 8 bits on {self._disagreement(self.eight):.2%}; "
                    f"disagreement={self.budget[DISAGREEMENT]:g} is out of reach there. Raise one of the budgets."
                )
        return solution

    def _within_size(self, limits: Mapping[str, float]) -> Solution:
        allowed = math.floor(self.budget[SIZE] * self.full_bytes)
        narrow = hybrid(self.eight, self.four, {choice.layer: 4 for choice in self.choices if not choice.fixed})
        smallest = self.job.file_bytes(narrow)
        if smallest > allowed:
            kept = sum(choice.fixed for choice in self.choices)
            raise QuantizationError(
                f"size={self.budget[SIZE]:g} is out of reach: with 4 bits wherever they may be, model.edgeq has "
                f"{smallest:,} bytes, {smallest / self.full_bytes:.4f} of the w8a8 file's {self.full_bytes:,} "
                f"({kept} of {len(self.choices)} layers are kept at 8 bits). "
                f"Give size={_up(smallest / self.full_bytes)} or more."
            )
        limit = allowed - self.mixed_bytes + total_cost(self.choices, SIZE, [True] * len(self.choices))
        for _ in range(SIZE_ROUNDS):
            try:
                solution = solve(self.choices, {**limits, SIZE: limit})
            except QuantizationError:
                break
            over = self.job.file_bytes(hybrid(self.eight, self.four, solution.bits)) - allowed
            if over <= 0:
                return solution
            limit -= over
        possible = least(self.choices, LATENCY, {SIZE: limit}) if limits else None
        if possible is None or self.times is None:
            raise QuantizationError(f"size={self.budget[SIZE]:g} is out of reach; give a little more.")
        share = (possible + self.times.rest_ms) / self.times.total_ms
        raise QuantizationError(
            f"size={self.budget[SIZE]:g} and latency={self.budget[LATENCY]:g} cannot be met together: within that size "
            f"the time is at least {share:.4f} of w8a8's. Give latency={_up(share)} or more, or raise the size."
        )

    def _check_latency(self, limit: float) -> None:
        assert self.times is not None
        fastest = least(self.choices, LATENCY, {})
        if fastest is not None and fastest > limit:
            share = (fastest + self.times.rest_ms) / self.times.total_ms
            raise QuantizationError(
                f"latency={self.budget[LATENCY]:g} is out of reach on this machine: the fastest choice of bits takes "
                f"{share:.4f} of w8a8's time, by the layers' own times. Give latency={_up(share)} or more."
            )

    def _gate(self) -> Solution:
        """All layers that may have 4 bits get them, then the worst revert until the disagreement is within its budget.

        How many must is found by bisection: every trial quantizes and measures the whole network.
        """
        budget = self.budget[DISAGREEMENT]
        rate = self._disagreement(self.eight)
        if rate > budget:
            raise QuantizationError(
                f"disagreement={budget:g} is out of reach: with all layers at 8 bits the network disagrees with the "
                f"float network on {rate:.2%} of the held-back samples. Give disagreement={_up(rate)} or more."
            )
        order = by_gain(self.choices, SIZE)
        fails, holds = -1, len(order)
        trials = math.ceil(math.log2(len(order) + 1)) if order else 0
        while holds - fails > 1:
            middle = (fails + holds) // 2
            self.job.progress("trying plans", trials - math.ceil(math.log2(holds - fails)), trials)
            if self._disagreement(self.job.quantize(self._reverted(order[:middle]))) <= budget:
                holds = middle
            else:
                fails = middle
        self.order = order[:holds]
        bits = self._reverted(self.order)
        wide = [bits[choice.layer] == 8 for choice in self.choices]
        objective = math.fsum(choice.sensitivity for choice in self.choices if bits[choice.layer] == 4)
        best = solve(self.choices, {SIZE: total_cost(self.choices, SIZE, wide)})
        return Solution(bits, objective, min(best.bound, objective))

    def _reverted(self, names: Sequence[str]) -> dict[str, int]:
        return {choice.layer: 8 if choice.fixed or choice.layer in names else 4 for choice in self.choices}

    def _disagreement(self, graph: Graph) -> float:
        held = self.job.held_back
        assert held is not None
        if self.answers is None:
            self.answers = _answers(float_outputs(self.job.graph, held))
        return disagreement_rate(self.answers, _answers(run_integers(graph, held)))

    def reached(self, bits: Mapping[str, int]) -> dict[str, float]:
        """What a choice comes to, by name of the budget; the latency by the layers' times and measured as a whole."""
        graph = hybrid(self.eight, self.four, bits)
        found = {SIZE: self.job.file_bytes(graph) / self.full_bytes}
        if self.times is not None:
            wide = [bits[choice.layer] == 8 for choice in self.choices]
            layers = total_cost(self.choices, LATENCY, wide)
            found["latency_by_layers"] = (layers + self.times.rest_ms) / self.times.total_ms
            found[LATENCY] = time_ratio(graph, self.eight, slice_feeds(graph, self.job.samples, 0, 1))
        if self.job.held_back is not None:
            found[DISAGREEMENT] = self._disagreement(self.job.quantize(bits))
        return found

    def entries(self, found: Sequence[Sensitivity], bits: Mapping[str, int]) -> dict[str, LayerPlan]:
        """Returns the layers' lines of the plan."""
        free = [choice for choice in self.choices if not choice.fixed]
        harm = math.fsum(choice.sensitivity for choice in free) or 1.0
        saving = math.fsum(choice.costs[SIZE][1] - choice.costs[SIZE][0] for choice in free) or 1.0
        lines = {}
        for one, choice in zip(found, self.choices, strict=True):
            narrow, wide = choice.costs[SIZE]
            rates = f"{(wide - narrow) / saving:.2%} of what 4 bits save in size, {one.value / harm:.2%} of their harm"
            if choice.fixed:
                reason = self.job.kept[one.layer]
            elif one.layer in self.order:
                reason = f"reverted as number {self.order.index(one.layer) + 1}: {rates}"
            else:
                reason = rates
            count = self.elements[one.layer]
            times = None if self.times is None else self.times.layers[one.layer]
            lines[one.layer] = LayerPlan(
                bits[one.layer], one.value, one.sqnr_db, ((count + 1) // 2, count), times, reason
            )
        return lines


def _up(share: float) -> str:
    """A share rounded up to three digits after the point."""
    return f"{math.ceil(share * 1000) / 1000:g}"


def _answers(outputs: list[Array]) -> npt.NDArray[np.int64]:
    if not sensitivity.is_scores(outputs[0]):
        raise UsageError("the budget disagreement needs a classifier, whose first output is one row of scores a sample")
    return predicted_class(outputs[0].reshape(len(outputs[0]), -1))


def with_origin(plan: PlanFile, model: str, model_sha256: str, calibration: Mapping[str, Any]) -> PlanFile:
    """Returns a plan with what it was made from.

    Args:
        plan: From `choose_bits`.
        model: The model's name.
        model_sha256: Of its file.
        calibration: The manifest's record.
    """
    origin = {name: calibration[name] for name in ("data_sha256", "samples", "seed", "held_back")}
    return replace(plan, model=model, model_sha256=model_sha256, calibration=origin, chosen=plan.digest)


def differences(plan: PlanFile, model_sha256: str, calibration: Mapping[str, Any]) -> list[str]:
    """Returns sentences on how a replay differs from what the plan was made from; its record is not of this export."""
    found = []
    if plan.chosen and plan.chosen != plan.digest:
        found.append("plan: it was edited; its [reached] and [optimum] are of the bits that were chosen")
    if plan.model_sha256 and plan.model_sha256 != model_sha256:
        found.append(f"plan: it was made for another model ({plan.model or 'no name'}, SHA-256 {plan.model_sha256})")
    others = [
        name
        for name in ("data_sha256", "samples", "seed")
        if name in plan.calibration and plan.calibration[name] != calibration[name]
    ]
    if others:
        found.append(f"plan: it was made with other calibration samples ({', '.join(others)} differ)")
    return found


def plan_facts(plan: PlanFile) -> dict[str, Any]:
    """Returns what the manifest says about a plan."""
    return {
        "bits": plan.bits,
        "edited": bool(plan.chosen) and plan.chosen != plan.digest,
        "budget": plan.budget,
        "reached": plan.reached,
        "optimum": plan.optimum,
    }


def plan_table(facts: Mapping[str, Any]) -> list[str]:
    """Returns lines for the terminal: each budget, what was asked and what was reached, and how good the choice is.

    Args:
        facts: From `plan_facts`.
    """
    if facts["edited"] or not facts["reached"]:
        return []
    rows = [("", "budget", "reached")]
    for name, value in facts["reached"].items():
        asked = facts["budget"].get(name)
        rows.append((name.replace("_", " "), "-" if asked is None else f"{asked:g}", f"{value:.4f}"))
    width = max(len(row[0]) for row in rows)
    lines = [f"{name.ljust(width)}  {asked:>6}  {reached:>7}" for name, asked, reached in rows]
    optimum = facts["optimum"]
    if optimum:
        lines.append(
            f"summed sensitivity {optimum['sensitivity']:.4g}, at most {optimum['gap']:.2%} from the least that the "
            "budgets allow"
        )
    return lines
