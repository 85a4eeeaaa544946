"""A whole run: train, map, evaluate, report."""

from contextlib import ExitStack
from typing import Any

from segbatch.commands.plan import plan
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.commands.scenes import check_alike, open_role
from segbatch.commands.split import open_labelled
from segbatch.commands.train import train, untrained_card
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
    with ExitStack() as stack:
        if config.inference.engine == "ray":
            # One Ray for both steps, so that it starts once.
            resources = stack.enter_context(ray_session(config.cluster.address))
            resources.wants_gpu(config.inference.use_gpu)
        train(config, overwrite, scenes)
        return predict(Request.from_config(config))
