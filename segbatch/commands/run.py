"""A whole run: train, map, evaluate, report."""

from contextlib import ExitStack
from typing import Any

from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.commands.only_new import Outcome, map_new
from segbatch.commands.plan import open_request, plan
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.commands.scenes import check_alike, open_role
from segbatch.commands.split import open_labelled
from segbatch.commands.train import train, untrained_card
from segbatch.commands.trained import is_trained
from segbatch.config import RunConfig
from segbatch.runtime import ray_session


def run(config: RunConfig, overwrite: bool = False) -> dict[str, Any]:
    """Train and map as the configuration says. Running it again goes on where an earlier run stopped.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: Bad input in any of the steps, found before the first begins.
    """
    scenes = open_labelled(config)
    check_alike(config, [*scenes["train"], *open_role(config, "predict")])
    plan(Request.from_config(config, card=untrained_card(config, scenes["train"][0].info)))
    folder = RunFolder.of(config.output)
    folder.create()
    with ExitStack() as stack:
        stack.enter_context(hold(folder))
        if config.inference.engine == "ray":
            # One Ray for both steps, so that it starts once.
            resources = stack.enter_context(ray_session(config.cluster.address))
            resources.wants_gpu(config.inference.use_gpu)
        train(config, overwrite, scenes)
        return predict(Request.from_config(config))


def run_new(config: RunConfig) -> Outcome:
    """Map what is new in the configuration's scenes, and train before where that is not finished yet: a schedule's run.

    Raises:
        FolderInUseError: Another command writes the folder.
        InputError: Bad input.
    """
    folder = RunFolder.of(config.output)
    folder.create()
    with hold(folder):
        if not is_trained(config):
            scenes = open_labelled(config)
            card = untrained_card(config, scenes["train"][0].info)
            open_request(Request.from_config(config, card=card, only_new=True), set_aside={})
            train(config, scenes=scenes)
        return map_new(Request.from_config(config, only_new=True))
