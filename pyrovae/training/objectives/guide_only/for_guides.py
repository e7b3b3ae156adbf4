"""What objectives for the guide alone share: latents of the model's own draws, and what they say of the guide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.simulation import Simulator
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.traces import Program, TracePair
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.objective import Objective, Prepared
from pyrovae.training.objectives.scales import alike


class GuideObjective(Objective):
    """An objective whose gradients are for the guide's parameters alone: to the model's it gives none.

    Draws enter it as fixed values, so discrete sites need nothing else. Its data count by the plate; any other scale
    is refused, as it would be that of another posterior or of other data. ``fit(only="guide")`` runs the modules of
    the model in eval mode; in Pyro's own ``SVI`` that is the caller's to do.
    """

    for_guide_alone = True

    def latents(self, model: Program, guide: Program, args: Sequence[Any]) -> Latents:
        """The latents of a batch, drawn and scored at any value."""
        return self._prepared_for(model, guide, args).latents.on(args)

    def elbo_terms(self, model: Program, guide: Program, args: Sequence[Any]) -> Tensor:
        """Reconstruction and KL of a batch, (2,), by runs that no gradient needs."""
        with torch.no_grad():
            runs = self.runs(model, guide, *args)
            return torch.stack([bounds.terms(run.score()) for run in runs]).sum(0) / self.num_particles

    def _prepared_for(self, model: Program, guide: Program, args: Sequence[Any]) -> Any:
        num_data = self.prepare(model, guide, *args).num_data
        return self._prepared[num_data]

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Prepared:
        found = super()._look(model, guide, args)
        latents = Latents.of(found.particles)
        latents.require_guide_density()
        return replace(found, latents=latents)

    def _require_condition(self, structure: Structure, run: TracePair) -> None:
        for site in run.every_site:
            if not alike(site["scale"], structure.plate_scale):
                raise InputError(
                    f"site '{site['name']}' is scaled: {type(self).__name__} would fit the guide to another posterior, "
                    "or to other data, than the model's; leave poutine.scale out, or use SampledELBO"
                )


class SleepingObjective(GuideObjective):
    """One that looks at data which the model simulates, from the covariates of each batch."""

    def forward_kl(self, model: Program, guide: Program, args: Sequence[Any]) -> Tensor:
        """Minus log q of the model's own latents given its own data, by the plate's scale: a scalar."""
        latents = self.latents(model, guide, args)
        simulator = self._prepared_for(model, guide, args).simulator
        losses = [_minus_log_guide(latents, simulator, args) for _ in range(self.num_particles)]
        return latents.structure.plate_scale * torch.stack(losses).mean()

    def _look(self, model: Program, guide: Program, args: Sequence[Any]) -> Prepared:
        found = super()._look(model, guide, args)
        simulator = Simulator(found.particles.model, args)
        assert found.latents is not None
        self._require_reading(found.latents.by("looped"), simulator, args)
        return replace(found, simulator=simulator)

    def _require_reading(self, latents: Latents, simulator: Simulator, args: Sequence[Any]) -> None:
        """Demands that the guide reads what is simulated, by its values or, where weights are zero, by gradients."""
        drawn = simulator.draw(args)
        values, inputs = latents.lifted(drawn.latents), list(drawn.args)
        if not torch.equal(*(latents.on(given).log_guide(values) for given in (args, inputs))):
            return
        for number in {place.argument for place in simulator.places.values()}:
            if not inputs[number].is_floating_point():
                return  # no gradient would tell
            inputs[number] = inputs[number].detach().requires_grad_()
        with torch.enable_grad():
            log_guide = latents.on(inputs).log_guide(values).sum()
        leaves = [one for one in inputs if isinstance(one, Tensor) and one.requires_grad]
        if any(slope is not None for slope in bounds.slopes(log_guide, leaves)):
            return
        raise InputError(
            f"the guide does not read the data: {type(self).__name__} trains it on data that the model simulates, and "
            "it would become the prior. Give an encoder, or train parameters for each datum by an ELBO or by "
            "SelfConsistency"
        )


def _minus_log_guide(latents: Latents, simulator: Simulator, args: Sequence[Any]) -> Tensor:
    simulated = simulator.draw(args)
    alone = latents.by("looped").on(simulated.args)
    return -alone.log_guide(alone.lifted(simulated.latents)).sum()
