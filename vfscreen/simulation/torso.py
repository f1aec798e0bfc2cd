"""The rest of the patient round the spine: skin, chest wall, ribs, lungs, vessels, organs, arms, table.

Ribs belong to their vertebrae, and all positions follow the spine. Every size and HU is drawn
wider than life, so that the networks learn the spine and not the torso (in the way of SynthSeg,
Billot et al. 2023).
"""

from __future__ import annotations

from vfscreen.simulation.abdomen import draw_abdomen
from vfscreen.simulation.frame import Rng, draw_frame
from vfscreen.simulation.lungs import draw_lungs
from vfscreen.simulation.mediastinum import draw_airway, draw_heart, draw_mediastinum, draw_vessels
from vfscreen.simulation.outside import draw_devices, draw_outside
from vfscreen.simulation.painting import Structure
from vfscreen.simulation.ribs import draw_ribs
from vfscreen.simulation.skeleton import draw_arms, draw_ilium, draw_shoulders, draw_sockets, draw_sternum
from vfscreen.simulation.spine import Spine
from vfscreen.simulation.wall import draw_back, draw_wall


def draw_torso(rng: Rng, spine: Spine) -> tuple[list[Structure], list[Structure]]:
    """All but the spine, in painting order: first most of it; then great vessels, airway, ribs, devices.

    The second list is painted after the first and before the spine's discs and bodies.
    """
    frame = draw_frame(rng, spine)
    cage = draw_ribs(rng, frame)
    sockets = draw_sockets(rng, frame)
    arms, arm_bones = draw_arms(rng, frame, sockets)
    first = [
        *arms,
        *draw_wall(rng, frame),
        *draw_back(rng, frame),
        *draw_abdomen(rng, frame),
        *draw_lungs(rng, frame),
        *draw_mediastinum(rng, frame),
        *draw_heart(rng, frame),
        *draw_shoulders(rng, frame, sockets),
        *arm_bones,
        *draw_sternum(rng, frame),
        *draw_ilium(rng, frame),
        *draw_outside(rng, frame),
    ]
    second = [
        *draw_vessels(rng, frame),
        *draw_airway(rng, frame),
        cage.structure(),
        *draw_devices(rng, frame),
    ]
    return first, second
