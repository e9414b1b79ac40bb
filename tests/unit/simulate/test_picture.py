"""The picture: well-formed, for both themes, with what was simulated and nothing that runs."""

from __future__ import annotations

from xml.etree import ElementTree

from penstock.simulate.engine import Simulation
from penstock.simulate.picture import draw
from penstock.simulate.policies.ours import Ours
from penstock.simulate.policies.table import OURS, POLICIES
from penstock.simulate.provider_world import ProviderLimits
from penstock.simulate.report import binding_limit, figures


def test_it_shows_level_reserve_and_the_waits_of_each_class(worlds):
    runs = [worlds.run(f"i{n}", n * 0.5) for n in range(100)]
    runs += [worlds.run(f"b{n}", 0.0, "batch") for n in range(500)]
    scenario = worlds.scenario(runs, ProviderLimits(rpm=300))
    simulation = Simulation(scenario, POLICIES[OURS].make, with_picture=True)
    found = figures(simulation, "<ours>", simulation.run(), binding_limit(scenario))
    assert isinstance(simulation.policy, Ours)
    picture = draw(simulation, found, simulation.policy.reserves(0))

    root = ElementTree.fromstring(picture)  # noqa: S314 - it was made here
    kinds = {line.get("class") for line in root.iter("{http://www.w3.org/2000/svg}polyline")}
    assert kinds == {"line level", "line reserve", "line rank0", "line rank1", "line rank2"}
    points = [each.get("class") for each in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert points == ["point rank2"], "one dump of jobs, and nobody before or after"
    assert "prefers-color-scheme: dark" in picture
    assert "<script" not in picture
    assert "&lt;ours&gt;" in picture
